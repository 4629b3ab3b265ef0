//! What was measured.

use std::{fs::File, io::Write, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

/// One figure.
#[derive(Debug, Clone)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// Smallest and largest of the rounds.
    spread: Option<(f64, f64)>,
    /// What the design asks for, in the same unit; smaller is better.
    goal: Option<f64>,
}

/// All figures of a bench.
#[derive(Debug, Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    /// Adds a single value.
    pub fn value(&mut self, name: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        self.push(Figure { name: name.to_owned(), value, unit, spread: None, goal });
    }

    /// Tells of it at once: a bench takes minutes, and may not come to its end.
    fn push(&mut self, figure: Figure) {
        eprintln!("  {}: {:.1} {}", figure.name, figure.value, figure.unit);
        self.0.push(figure);
    }

    /// Adds the median of several times, in milliseconds.
    pub fn median(&mut self, name: &str, times: &[Duration], goal: Option<f64>) {
        self.percentile(name, times, 0.5, goal);
    }

    /// Adds a percentile of several times, in milliseconds.
    pub fn percentile(&mut self, name: &str, times: &[Duration], part: f64, goal: Option<f64>) {
        let mut values: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        values.sort_by(f64::total_cmp);
        let Some(last) = values.len().checked_sub(1) else { return };
        // The nearest rank.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index of a short list"
        )]
        let rank = ((last as f64) * part).round() as usize;
        self.push(Figure {
            name: name.to_owned(),
            value: values[rank],
            unit: "ms",
            spread: Some((values[0], values[last])),
            goal,
        });
    }

    /// Prints a table.
    pub fn print(&self) -> Result<()> {
        let mut out = tabwriter::TabWriter::new(std::io::stdout().lock()).padding(3);
        writeln!(out, "FIGURE\tVALUE\tUNIT\tSPREAD\tGOAL")?;
        for figure in &self.0 {
            let spread = figure.spread.map_or_else(String::new, |(low, high)| format!("{low:.1} – {high:.1}"));
            let goal = figure.goal.map_or_else(String::new, |goal| format!("≤ {goal}"));
            writeln!(out, "{}\t{:.1}\t{}\t{spread}\t{goal}", figure.name, figure.value, figure.unit)?;
        }
        Ok(out.flush()?)
    }

    /// Writes one JSON object a line.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let mut file = File::create(path).with_context(|| format!("write {}", path.display()))?;
        for figure in &self.0 {
            let ratio = figure.goal.map(|goal| figure.value / goal);
            let spread = figure.spread.map(|(low, high)| [low, high]);
            let object = json!({"name": figure.name, "value": figure.value, "unit": figure.unit, "peer": "goal", "ratio": ratio, "spread": spread});
            writeln!(file, "{object}")?;
        }
        Ok(())
    }
}
