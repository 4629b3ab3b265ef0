//! Stages and what they need of each other.

use std::collections::BTreeMap;

use super::{
    dockerfile::{
        Kind, Mistake,
        expand::Shell,
        instruction::{From, Instruction, Placed},
    },
    mounts,
};

/// More stages than any Dockerfile has.
const MAX_STAGES: usize = 1000;

/// A stage: where it begins and what it does.
#[derive(Clone, Debug)]
pub struct Stage {
    pub from: From,
    /// The base's name with variables replaced.
    pub base: String,
    pub platform: Option<String>,
    pub placed: Placed,
    pub steps: Vec<Placed>,
    /// The stage it begins with, where that is one of the earlier.
    pub parent: Option<usize>,
    /// Every earlier stage it needs.
    pub needs: Vec<usize>,
}

/// A Dockerfile as stages.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Arguments before the first stage, with their values.
    pub global: BTreeMap<String, String>,
    pub global_steps: Vec<Placed>,
    pub stages: Vec<Stage>,
    /// The stage that is wanted.
    pub target: usize,
}

impl Graph {
    /// Puts instructions into stages. `given` are the build's arguments, `known` what is set without being given.
    pub fn of(
        all: Vec<Placed>,
        escape: char,
        given: &BTreeMap<String, Option<String>>,
        known: &BTreeMap<String, String>,
        target: &str,
    ) -> Result<Graph, Mistake> {
        let mut global = known.clone();
        let (mut global_steps, mut stages): (Vec<Placed>, Vec<Stage>) = (Vec::new(), Vec::new());
        for placed in all {
            let line = placed.first;
            match (&placed.instruction, stages.last_mut()) {
                (Instruction::From(from), _) => {
                    if stages.len() >= MAX_STAGES {
                        return Err(Mistake::new(line, format!("more than {MAX_STAGES} build stages")));
                    }
                    let from = from.clone();
                    let expand = |text: &str| {
                        let lookup = |name: &str| global.get(name).cloned();
                        Shell::new(escape).word(text, &lookup).map_err(|error| Mistake::new(line, error))
                    };
                    let base = expand(&from.image)?;
                    if base.is_empty() {
                        return Err(Mistake::new(line, format!("base name ({}) should not be blank", from.image)));
                    }
                    let platform = from.platform.as_deref().map(expand).transpose()?.filter(|text| !text.is_empty());
                    let parent = stages.iter().rposition(|stage| stage.is_named(&base));
                    let needs = parent.into_iter().collect();
                    stages.push(Stage { from, base, platform, placed, steps: Vec::new(), parent, needs });
                }
                (Instruction::Arg(arguments), None) => {
                    for (name, value) in arguments {
                        let value = match (given.get(name), value) {
                            (Some(value), _) => value.clone(),
                            (None, Some(value)) => {
                                let lookup = |name: &str| global.get(name).cloned();
                                let value = Shell::new(escape).word(value, &lookup);
                                Some(value.map_err(|error| Mistake::new(line, error))?)
                            }
                            (None, None) => None,
                        };
                        if let Some(value) = value {
                            global.insert(name.clone(), value);
                        }
                    }
                    global_steps.push(placed);
                }
                (_, None) => return Err(Mistake::new(0, "no build stage in current context")),
                (_, Some(stage)) => stage.steps.push(placed),
            }
        }
        if stages.is_empty() {
            return Err(Mistake::new(0, "no build stage in current context"));
        }
        let target = find_target(&stages, target)?;
        for index in 0..stages.len() {
            let mut needs = stages[index].needs.clone();
            for step in &stages[index].steps {
                for name in sources(&step.instruction) {
                    needs.extend(named(&stages[..index], &name));
                }
            }
            needs.sort_unstable();
            needs.dedup();
            stages[index].needs = needs;
        }
        Ok(Graph { global, global_steps, stages, target })
    }

    /// The stages that the target needs, and itself, in their order.
    pub fn wanted(&self) -> Vec<usize> {
        let mut wanted = vec![false; self.stages.len()];
        let mut todo = vec![self.target];
        while let Some(stage) = todo.pop() {
            if !std::mem::replace(&mut wanted[stage], true) {
                todo.extend(&self.stages[stage].needs);
            }
        }
        (0..wanted.len()).filter(|&stage| wanted[stage]).collect()
    }
}

impl Stage {
    fn is_named(&self, name: &str) -> bool {
        self.from.name.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The stage among these that a name or a number means.
pub fn named(stages: &[Stage], name: &str) -> Option<usize> {
    let by_name = stages.iter().rposition(|stage| stage.is_named(name));
    by_name.or_else(|| name.parse::<usize>().ok().filter(|&index| index < stages.len()))
}

fn find_target(stages: &[Stage], target: &str) -> Result<usize, Mistake> {
    if target.is_empty() {
        return Ok(stages.len() - 1);
    }
    let missing = || Mistake::new(0, format!("target stage {target:?} could not be found")).of(Kind::NoTarget);
    named(stages, target).ok_or_else(missing)
}

/// The stages or images whose files a step takes.
fn sources(instruction: &Instruction) -> Vec<String> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        // What is wrong with a mount is told when the step comes.
        Instruction::Run(run) => run.mounts.iter().filter_map(|mount| mounts::parse(mount).ok()?.from).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::dockerfile, *};

    fn graph(text: &str, target: &str) -> Result<Graph, Mistake> {
        let document = dockerfile::lines::read(text)?;
        let all = dockerfile::parse(&document)?;
        Graph::of(all, document.escape, &[("B".to_owned(), Some("given".to_owned()))].into(), &BTreeMap::new(), target)
    }

    #[test]
    fn only_what_is_needed_is_built() {
        let text = "ARG A=x B=y\nFROM $A AS one\nRUN a\nFROM ${B} AS two\nFROM one\nCOPY --from=0 /a /b\nFROM two\nRUN --mount=type=bind,from=one,target=/x true\n";
        let last = graph(text, "").unwrap();
        assert_eq!((last.stages[0].base.as_str(), last.stages[1].base.as_str()), ("x", "given"));
        assert_eq!(last.wanted(), [0, 1, 3]);
        assert_eq!(graph(text, "2").unwrap().wanted(), [0, 2]);
        assert_eq!(graph(text, "TWO").unwrap().wanted(), [1]);
        assert!(graph(text, "none").unwrap_err().message.contains("target stage"));
        assert_eq!(graph("RUN x", "").unwrap_err().message, "no build stage in current context");
        assert!(graph("FROM $NONE", "").unwrap_err().message.contains("should not be blank"));
    }

    /// A stage never needs a later one, so builds end.
    #[test]
    fn needs_lead_back() {
        for seed in 0..500 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut text = String::new();
            for index in 0..random.usize(1..8) {
                let base = ["x".to_owned(), format!("s{}", random.usize(..8))][random.usize(..2)].clone();
                text.push_str(&format!("FROM {base} AS s{index}\n"));
                text.push_str(&format!("COPY --from=s{} /a /b\n", random.usize(..8)));
            }
            let graph = graph(&text, "").unwrap();
            for (index, stage) in graph.stages.iter().enumerate() {
                assert!(stage.needs.iter().all(|&other| other < index), "seed {seed}");
            }
            let wanted = graph.wanted();
            assert_eq!(wanted.last(), Some(&graph.target), "seed {seed}");
        }
    }
}
