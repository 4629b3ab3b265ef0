//! `POST /containers/create`

use std::{fs::OpenOptions, io::ErrorKind, os::unix::fs::OpenOptionsExt, sync::Arc, time::Instant};

use serde_json::json;

use super::{
    super::{
        Docker,
        http::{Answer, Call, Problem, created},
        metrics::Action,
        types::{Config, CreateBody, HostConfig},
    },
    Container, Record, names, options,
    spec::arguments,
};
use crate::{
    engine::{
        model::{ContainerConfig, ContainerImage, Security, new_id, now},
        selinux::{DISABLE, Selinux},
    },
    images::catalogue::ImageRecord,
    snapshots::Root,
};

pub async fn create(mut call: Call) -> Answer {
    let name = call.query.text("name").to_owned();
    let platform = call.query.text("platform").to_owned();
    let mut body: CreateBody = call.json().await?;
    if call.version < 44 {
        read_only_at_the_top(&mut body.host_config);
    }
    if let Some(os) = platform.split('/').next().filter(|os| !os.is_empty() && *os != "linux") {
        return Err(Problem::bad(format!("unsupported platform {os:?}: only linux is")));
    }
    let docker = call.docker.clone();
    // A client that goes away must not leave a container half made.
    let made = tokio::spawn(async move { docker.create_container(&name, body).await });
    let (container, warnings) = made.await.map_err(crate::Error::from)??;
    created(&json!({ "Id": container.id, "Warnings": warnings }))
}

impl Docker {
    /// Makes a container as asked for; with what there is to warn of.
    pub async fn create_container(
        self: &Arc<Docker>,
        name: &str,
        body: CreateBody,
    ) -> Result<(Arc<Container>, Vec<String>), Problem> {
        let name = name.strip_prefix('/').unwrap_or(name);
        if !name.is_empty() {
            names::check(name)?;
        }
        if body.config.image.is_empty() {
            return Err(Problem::bad("config cannot be empty in order to create a container: no image given"));
        }
        let image = self.find_image(&body.config.image)?;
        self.create_container_of(name, image, body).await
    }

    /// The same over an image that was found already.
    pub async fn create_container_of(
        self: &Arc<Docker>,
        name: &str,
        image: Arc<ImageRecord>,
        body: CreateBody,
    ) -> Result<(Arc<Container>, Vec<String>), Problem> {
        let began = Instant::now();
        let CreateBody { mut config, mut host_config, networking_config } = body;
        let user_hostname = config.hostname.clone();
        options::fill(&mut host_config, self.engine.cgroup_is_v2());
        options::check(&host_config, &config)?;
        self.merge_image(&mut config, &image)?;
        check_config(&config)?;
        let id = new_id();
        let warnings = self.settle_modes(&id, &mut config, &mut host_config, &user_hostname).map_err(not_the_image)?;
        let mut record =
            Record { created: now(), image_id: image.id.to_string(), config, host: host_config, ..Record::default() };
        if arguments(&record).is_empty() {
            return Err(Problem::bad("no command specified"));
        }
        record.networks = self.wanted_networks(&record, networking_config).map_err(not_the_image)?;
        let mounts = self.wanted_mounts(&record).map_err(not_the_image)?;
        self.check_links(&record)?;
        record.name = self.take_name(name, &id)?;
        let taken = record.name.clone();
        let made = self.make_container(&id, record, &image, mounts).await;
        let container = made.inspect_err(|_| self.store.release(&taken, &id))?;
        self.tell(&container, "create");
        self.metrics.did(Action::Create, began);
        Ok((container, warnings))
    }

    fn take_name(&self, name: &str, id: &str) -> Result<String, Problem> {
        if name.is_empty() {
            for attempt in 0..1000 {
                let name = names::random(attempt);
                if self.store.reserve(&name, id).is_ok() {
                    return Ok(name);
                }
            }
            return Err(Problem::internal("no name is free"));
        }
        self.store.reserve(name, id).map_err(|owner| name_taken(name, &owner))?;
        Ok(name.to_owned())
    }

    async fn make_container(
        self: &Arc<Docker>,
        id: &str,
        record: Record,
        image: &ImageRecord,
        mut mounts: Vec<super::mounts::Wanted>,
    ) -> Result<Arc<Container>, Problem> {
        let config = ContainerConfig {
            name: record.name.clone(),
            image: image.id.to_string(),
            user_image: record.config.image.clone(),
            labels: record.config.labels.clone(),
            tty: record.config.tty,
            stdin: record.config.open_stdin,
            // A terminal that is hung up is not the end of its input.
            stdin_once: record.config.stdin_once && !record.config.tty,
            resources: super::spec::resources(&record.host),
            mounts: self.find_images(&mut mounts).map_err(not_the_image)?,
            security: Security { selinux: super::spec::security_options(&record.host)?.labels, ..Security::default() },
            ..ContainerConfig::default()
        };
        let kept = ContainerImage {
            id: image.id.clone(),
            reference: record.config.image.clone(),
            chains: image.chains.clone(),
            stop_signal: record.config.stop_signal.clone(),
        };
        let parent = record.host.cgroup_parent.clone();
        let engine = self.engine.create_standalone(id, config, kept, &parent).await?;
        let container = Arc::new(Container::new(engine, record, false));
        let (docker, made) = (self.clone(), container.clone());
        let furnished = self.engine.blocking(move || -> Result<(), Problem> {
            docker.mark_root(&made)?;
            docker.prepare_working_dir(&made)?;
            let points = docker.make_mounts(&made, mounts)?;
            docker.change(&made, |record| record.mounts = points)?;
            Ok(())
        });
        if let Err(problem) = furnished.await? {
            if let Err(error) = self.engine.remove_standalone(&container.engine).await {
                tracing::warn!(container = id, %error, "cannot clean up after a container that could not be made");
            }
            return Err(problem);
        }
        self.store.insert(container.clone());
        Ok(container)
    }

    /// Makes the empty file by which programs know that they are in a container (moby `daemon/initlayer`).
    fn mark_root(&self, container: &Container) -> Result<(), Problem> {
        let dir = match self.engine.root_of(&container.engine)? {
            Root::Directory(path) => path,
            // The writable layer is empty yet: nothing in it leads elsewhere.
            Root::Mount { options, .. } => super::filesystem::upper_of(&options)?,
        };
        let made = OpenOptions::new().write(true).create_new(true).mode(0o755).open(dir.join(".dockerenv"));
        match made {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(Problem::internal(format!("create /.dockerenv: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Makes the working directory, as Docker does where the image has none.
    fn prepare_working_dir(&self, container: &Container) -> Result<(), Problem> {
        let dir = container.with(|record| record.config.working_dir.clone());
        if dir.is_empty() || dir == "/" {
            return Ok(());
        }
        let tree = self.root_of(container)?;
        super::archive::make_directories(&tree, std::path::Path::new(&dir))
            .map_err(|error| Problem::internal(format!("mkdir {dir}: {error}")))
    }

    /// What the image says where the request says nothing (moby `daemon/commit.go`, `merge`).
    fn merge_image(&self, config: &mut Config, image: &ImageRecord) -> Result<(), Problem> {
        let own = self.image_config(image)?;
        if config.user.is_empty() {
            config.user = own.user;
        }
        for (port, value) in own.exposed_ports {
            config.exposed_ports.entry(port).or_insert(value);
        }
        let mut environment = own.env.unwrap_or_default();
        for entry in config.env.take().unwrap_or_default() {
            let name = entry.split('=').next().unwrap_or_default().to_owned();
            environment.retain(|other| other.split('=').next() != Some(&name));
            environment.push(entry);
        }
        config.env = Some(environment);
        for (key, value) in own.labels {
            config.labels.entry(key).or_insert(value);
        }
        if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
            let given = config.entrypoint.is_some();
            if config.cmd.as_ref().is_none_or(Vec::is_empty) && !given {
                config.cmd = own.cmd;
            }
            if !given {
                config.entrypoint = own.entrypoint;
            }
        }
        // `--entrypoint ""` comes as one empty word.
        if config.entrypoint.as_ref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
            config.entrypoint = None;
        }
        match (&mut config.healthcheck, own.healthcheck) {
            (None, theirs) => config.healthcheck = theirs,
            (Some(mine), Some(theirs)) => {
                if mine.test.is_empty() {
                    mine.test = theirs.test;
                }
                for (mine, theirs) in [
                    (&mut mine.interval, theirs.interval),
                    (&mut mine.timeout, theirs.timeout),
                    (&mut mine.start_period, theirs.start_period),
                    (&mut mine.start_interval, theirs.start_interval),
                    (&mut mine.retries, theirs.retries),
                ] {
                    if *mine == 0 {
                        *mine = theirs;
                    }
                }
            }
            (Some(_), None) => {}
        }
        if config.working_dir.is_empty() {
            config.working_dir = own.working_dir;
        }
        if let Some(volumes) = own.volumes.filter(|volumes| !volumes.is_empty()) {
            config.volumes.get_or_insert_default().extend(volumes);
        }
        if config.stop_signal.is_empty() {
            config.stop_signal = own.stop_signal;
        }
        if config.shell.is_none() {
            config.shell = own.shell;
        }
        Ok(())
    }

    /// Names in modes become ids; what the host lacks is warned of.
    fn settle_modes(
        &self,
        id: &str,
        config: &mut Config,
        host: &mut HostConfig,
        hostname: &str,
    ) -> Result<Vec<String>, Problem> {
        for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(target) = mode.strip_prefix("container:") {
                *mode = format!("container:{}", self.container(target)?.id);
            }
        }
        if hostname.is_empty() {
            config.hostname = if host.network_mode == "host" || host.uts_mode == "host" {
                nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            } else if let Some(target) = host.network_mode.strip_prefix("container:") {
                self.container(target)?.with(|record| record.config.hostname.clone())
            } else {
                id[..12].to_owned()
            };
        } else if hostname.len() > 64 || hostname.chars().any(char::is_control) {
            return Err(Problem::bad(format!("invalid hostname format: {hostname}")));
        }
        if !host.security_opt.iter().flatten().any(|option| option.split('=').next() == Some("label")) {
            let labels = self.labels_of_others(host)?;
            if !labels.is_empty() {
                host.security_opt.get_or_insert_default().extend(labels.iter().map(|option| format!("label={option}")));
            }
        }
        Ok(Vec::new())
    }

    /// SELinux's options of a container that names none but shares what it is to be called for: whoever sees the host's
    /// processes is not told from them, whoever sees a container's is called as that (moby `daemon/daemon_unix.go`,
    /// `generateSecurityOpt`).
    fn labels_of_others(&self, host: &HostConfig) -> Result<Vec<String>, Problem> {
        if host.privileged || host.ipc_mode == "host" || host.pid_mode == "host" {
            return Ok(vec![DISABLE.to_owned()]);
        }
        let of = |mode: &str| match mode.strip_prefix("container:") {
            Some(target) => self.container(target).map(|other| Some(Selinux::same(&other.engine.labels))),
            None => Ok(None),
        };
        match (of(&host.ipc_mode)?, of(&host.pid_mode)?) {
            (Some(ipc), Some(pid)) if ipc != pid => {
                Err(Problem::internal("--ipc and --pid containers SELinux labels aren't the same"))
            }
            (ipc, pid) => Ok(pid.or(ipc).unwrap_or_default()),
        }
    }
}

/// Until API 1.44 a read-only mount left those below it writable (API version history, 1.44).
fn read_only_at_the_top(host: &mut HostConfig) {
    for mount in host.mounts.iter_mut().filter(|mount| mount.kind == "bind" && mount.read_only) {
        mount.bind_options.get_or_insert_default().read_only_non_recursive = true;
    }
}

/// Clients take a 404 of a create for a missing image and pull it.
fn not_the_image(problem: Problem) -> Problem {
    match problem.status {
        http::StatusCode::NOT_FOUND => Problem::bad(problem.message),
        _ => problem,
    }
}

/// 409 in dockerd's words.
pub fn name_taken(name: &str, owner: &str) -> Problem {
    Problem::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
    ))
}

fn check_config(config: &Config) -> Result<(), Problem> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Problem::bad(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if !config.stop_signal.is_empty() && coracle_launcher::cli::signal_number(&config.stop_signal).is_err() {
        return Err(Problem::bad(format!("invalid signal: {}", config.stop_signal)));
    }
    for entry in config.env.iter().flatten() {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(Problem::bad(format!("invalid environment variable: {entry}")));
        }
    }
    if let Some(check) = &config.healthcheck {
        super::health::check_config(check)?;
    }
    for port in config.exposed_ports.keys() {
        crate::networks::ports::parse_port(port)
            .map_err(|_| Problem::bad(format!("invalid container port: {port:?}")))?;
    }
    Ok(())
}
