//! `agent run`: composes the node from its rooms.
//!
//! Nothing here needs the API server to be there: configuration and certificates are read from disk, every part waits
//! for what it needs, and pods that run are adopted.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinError;

use crate::client::{self, Credentials, Renewal, Servers, tls};
use crate::config::{Config, KubeletConfiguration};
use crate::events::{Kind, Recorder, node_reference};
use crate::eviction::Pressures;
use crate::identity::csr::Purpose;
use crate::identity::files::Files;
use crate::identity::rotate::Rotation;
use crate::identity::trust::{Following, Roots};
use crate::identity::{Identity, certificates};
use crate::inspect::socket::{self, Inspector};
use crate::metrics::RuntimeCalls;
use crate::network::{self, NetworkHandle, NetworkInputs};
use crate::node::{self, NodeHandle, NodeInputs};
use crate::pods::{self, PodsConfig, PodsHandle};
use crate::serve::{self, ServeHandle, ServeInputs, healthz};
use crate::tasks::{self, Tasks};
use crate::{kernel_flags, own_limits, preflight, runtime_info, runtime_needs, state_format};

/// Runs the node of `config_dir` until SIGTERM or SIGINT.
///
/// # Errors
/// A configuration or certificate that cannot be used.
pub async fn run(config_dir: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let config = load(config_dir)?;
    let mut node = Node::start(config).await?;
    let name = node.config.node.node_name.clone();
    systemd::notify::ready(&format!("node {name}"));
    tracing::info!(node = %name, version = node::facts::KUBELET_VERSION, "agent is running");
    let feeding = tokio::spawn(feed_watchdog());
    // Cancel-safe: signals are counted by tokio, and one is enough; of panics none is waited for twice.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        panic = node.panicked() => anyhow::bail!("a part of the agent ended: {panic}"),
    }
    systemd::notify::stopping();
    feeding.abort();
    tracing::info!("agent is ending; containers go on");
    drop(node);
    Ok(())
}

fn load(config_dir: &Path) -> anyhow::Result<Arc<Config>> {
    let (config, warnings) = Config::load_or_say(config_dir)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    preflight::check(Path::new("/"), &config.kubelet)?;
    own_limits::set(Path::new("/"), &config.kubelet);
    state_format::take_over(&config.layout.data_dir)?;
    kernel_flags::set(&config);
    Ok(Arc::new(config))
}

async fn feed_watchdog() {
    let Some(interval) = systemd::notify::watchdog_interval() else { return };
    loop {
        systemd::notify::watchdog();
        tokio::time::sleep(interval).await;
    }
}

/// The parts of a running node; dropping it ends them.
struct Node {
    config: Arc<Config>,
    node: NodeHandle,
    network: NetworkHandle,
    server: Option<ServeHandle>,
    pods: PodsHandle,
    tasks: Tasks,
}

impl Node {
    async fn start(config: Arc<Config>) -> anyhow::Result<Self> {
        let credentials = ClientIdentity::load(&config)?;
        let client = credentials.client.clone();
        let runtime = runtime(&config.kubelet)?;
        let recorder = Recorder::start(
            client.clone(),
            &config.node.node_name,
            config.kubelet.event_record_qps,
            config.kubelet.event_burst,
        );
        let (authorities, mut tasks) = credentials.keep_valid(&config);
        let (folders, folders_known) = watch::channel(network::Folders::known(&config));
        let runtime_back = Arc::new(Notify::new());
        let keeping = runtime_needs::keep(runtime.clone(), Arc::clone(&config), Arc::clone(&runtime_back), folders);
        tasks.push(tokio::spawn(keeping));
        let (pressures, pressures_seen) = watch::channel(Pressures::new());
        let (shutting_down, shutdown_seen) = watch::channel(false);
        let (own, own_followed) = node::own::follow(client.clone(), &config.node.node_name, &node::labels(&config));
        tasks.push(own_followed);
        let inputs = NodeInputs {
            config: Arc::clone(&config),
            client: client.clone(),
            runtime: runtime.clone(),
            recorder: recorder.clone(),
            pressures: pressures_seen,
            shutting_down: shutdown_seen,
            own: own.clone(),
        };
        let node = node::start(inputs);
        let (serving, rotation) = serving_identity(&config, &client, &node, authorities.settled)?;
        tasks.extend(rotation);
        let pods = pods(
            &config,
            (&client, &runtime, &recorder),
            (&node, own.clone()),
            (pressures, shutting_down, runtime_back),
        )
        .await?;
        let server = serve(&config, (&client, &runtime), &pods, serving, authorities.trusted).await?;
        tasks.extend(healthz(&config));
        tasks.extend(inspector(&config, &pods));
        let network = network::start(NetworkInputs {
            config: Arc::clone(&config),
            client,
            folders: folders_known,
            addresses: node.addresses.clone(),
            own,
            changed: node.look(),
            recorder,
        })
        .context("network")?;
        Ok(Self { config, node, network, server, pods, tasks })
    }

    /// Waits for the panic of a part.
    async fn panicked(&mut self) -> JoinError {
        let server = self.server.as_mut().map(|server| &mut server.tasks);
        let parts = [&mut self.node.tasks, &mut self.network.tasks, &mut self.pods.tasks, &mut self.tasks];
        tasks::panicked(parts.into_iter().chain(server)).await
    }
}

/// The container runtime, and the program that has the images where that is another.
fn runtime(kubelet: &KubeletConfiguration) -> anyhow::Result<cri::Client> {
    let runtime = cri::Client::new(&kubelet.container_runtime_endpoint).context("containerRuntimeEndpoint")?;
    let runtime = runtime.within(kubelet.runtime_request_timeout.0).observed(RuntimeCalls);
    match kubelet.image_service_endpoint.as_str() {
        "" => Ok(runtime),
        images => runtime.with_images_at(images).context("imageServiceEndpoint"),
    }
}

/// Starts the HTTPS server, unless the configuration forbids it.
async fn serve(
    config: &Arc<Config>,
    (client, runtime): (&kube::Client, &cri::Client),
    pods: &PodsHandle,
    certificate: Serving,
    authorities: watch::Receiver<Roots>,
) -> anyhow::Result<Option<ServeHandle>> {
    if !config.kubelet.enable_server {
        return Ok(None);
    }
    let inputs = ServeInputs {
        config: Arc::clone(config),
        client: client.clone(),
        runtime: runtime.clone(),
        pods: pods.registry(),
        stats: pods.stats(),
        certificate,
        authorities,
    };
    Ok(Some(serve::start(inputs).await?))
}

/// The plain health endpoint. Several agents on one machine may want the same port: who comes later goes without.
fn healthz(config: &Config) -> Option<tokio::task::JoinHandle<()>> {
    let (address, port) = (&config.kubelet.healthz_bind_address, config.kubelet.healthz_port);
    if port == 0 {
        return None;
    }
    match healthz::bind(address, port) {
        Ok(listener) => Some(tokio::spawn(healthz::serve(listener))),
        Err(error) => {
            tracing::warn!(%error, address, port, "healthz is not served");
            None
        }
    }
}

/// The socket for people on this machine, without which a node works as well.
fn inspector(config: &Config, pods: &PodsHandle) -> Option<tokio::task::JoinHandle<()>> {
    let path = config.layout.agent_socket();
    match socket::bind(&path) {
        Ok(listener) => Some(tokio::spawn(socket::serve(listener, Inspector::new(pods)))),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "agent pods, top and explain will not work");
            None
        }
    }
}

/// Starts the pods of this node.
async fn pods(
    config: &Config,
    (client, runtime, recorder): (&kube::Client, &cri::Client, &Recorder),
    (node, own): (&NodeHandle, node::own::Receiver),
    (pressures, shutting_down, runtime_back): (watch::Sender<Pressures>, watch::Sender<bool>, Arc<Notify>),
) -> anyhow::Result<PodsHandle> {
    let facts = node::facts::read(Path::new("/"));
    let disk = node::facts::filesystem(&config.layout.data_dir);
    node::resources::check(&facts, disk, &config.kubelet).map_err(anyhow::Error::msg)?;
    let resources = node::resources::resources(&facts, disk, &config.kubelet);
    let pods_config = PodsConfig::new(config, api::resources::read(Some(&resources.allocatable)), &facts);
    let driver = runtime_info::cgroup_driver(runtime, &config.kubelet).await;
    let reserved = pods::allocatable::enforcements(&config.kubelet, &facts);
    let (above, events) = (pods_config.clone(), recorder.clone());
    let opening = tokio::task::spawn_blocking(move || {
        if let Some(problem) = above.dns.problem() {
            let node = node_reference(&above.node_name);
            events.event(&node, Kind::Warning, "CheckLimitsForResolvConf", &problem);
        }
        let cgroups = pods::open_cgroups(driver, &above).context("cgroups")?;
        pods::allocatable::enforce(cgroups.as_ref(), &reserved, &events, &above.node_name)?;
        anyhow::Ok(cgroups)
    });
    let cgroups = opening.await??;
    let deps = pods::Deps {
        config: pods_config,
        client: client.clone(),
        runtime: runtime.clone(),
        recorder: recorder.clone(),
        addresses: node.addresses.clone(),
        runtime_back,
        node: own,
        facts,
        cgroups,
        pressures,
        shutting_down,
    };
    Ok(pods::start(deps)?)
}

/// The client certificate and the client that uses it.
struct ClientIdentity {
    client: kube::Client,
    renewal: Renewal,
    servers: Servers,
    roots: watch::Sender<Roots>,
    current: watch::Sender<Option<Identity>>,
}

/// What other parts need to know of the CAs.
struct Authorities {
    /// Whom clients of this node are verified by.
    trusted: watch::Receiver<Roots>,
    /// Those of which the client certificate is already; the serving one follows, so that who sees it knows of both.
    settled: watch::Receiver<Roots>,
}

impl ClientIdentity {
    fn load(config: &Config) -> anyhow::Result<Self> {
        let layout = &config.layout;
        let pem = std::fs::read(layout.ca_cert()).with_context(|| layout.ca_cert().display().to_string())?;
        let roots: Roots = certificates(&layout.ca_cert().to_string_lossy(), &pem)?.into();
        let identity = Identity::load(&layout.client_pem())?
            .with_context(|| format!("{}: no client certificate (agent join)", layout.client_pem().display()))?;
        let now = crate::identity::now();
        if now < identity.not_before {
            // As on a machine that keeps no time while it is off: this passes with the first answer of a time server.
            tracing::error!("the client certificate is not valid yet by this machine's clock, which has to be set");
        } else if !identity.is_valid_at(now) {
            tracing::error!("the client certificate has expired: join again with a new token");
        }
        let servers = config.node.server.clone();
        let limit = client::pace::limit(&config.kubelet);
        let config = tls::client_config(&roots, Some(Arc::clone(&identity.certified)))?;
        let (client, renewal) = client::paced(&servers, config, &Credentials::Certificate, limit)?;
        let (current, _) = watch::channel(Some(identity));
        let (roots, _) = watch::channel(roots);
        Ok(Self { client, renewal, servers, roots, current })
    }

    /// Starts following the CAs, and renewal unless the configuration forbids it.
    fn keep_valid(self, config: &Config) -> (Authorities, Tasks) {
        let (seen, trusted) = (self.current.subscribe(), self.roots.subscribe());
        let (settled, settled_seen) = watch::channel(Roots::from([]));
        let authorities = Authorities { trusted: trusted.clone(), settled: settled_seen };
        let following = Following {
            client: self.client.clone(),
            servers: self.servers,
            path: config.layout.ca_cert(),
            current: self.roots,
        };
        let (purpose, wanted) = watch::channel(Some(Purpose::Client));
        let mut tasks = Tasks::from([tokio::spawn(following.run())]);
        if config.kubelet.rotate_certificates {
            let rotation = Rotation {
                client: self.client,
                node_name: config.node.node_name.clone(),
                path: config.layout.client_pem(),
                purpose: wanted,
                authorities: trusted.clone(),
                current: self.current,
            };
            tasks.push(tokio::spawn(rotation.run()));
        }
        tasks.push(tokio::spawn(async move {
            use_latest(seen, trusted, self.renewal, settled).await;
            drop(purpose);
        }));
        (authorities, tasks)
    }
}

/// Later connections to the API server present the latest certificate and believe the latest CAs.
async fn use_latest(
    mut identity: watch::Receiver<Option<Identity>>,
    mut roots: watch::Receiver<Roots>,
    renewal: Renewal,
    settled: watch::Sender<Roots>,
) {
    let mut is_first = true;
    loop {
        let (own, trusted) = (identity.borrow_and_update().clone(), roots.borrow_and_update().clone());
        if let Some(own) = own {
            if trusted.first().is_some_and(|first| own.is_issued_by(std::slice::from_ref(first))) {
                settled.send_replace(trusted.clone());
            }
            // The client was made with the first ones.
            if !std::mem::take(&mut is_first) {
                match tls::client_config(&trusted, Some(own.certified)) {
                    Ok(config) => renewal.replace(config),
                    Err(error) => tracing::error!(%error, "the client certificate and the CAs cannot be used"),
                }
            }
        }
        // Cancel-safe: a change stays marked until it is read. Nobody renews where that is forbidden: then only the CAs change.
        let changed = tokio::select! {
            Ok(()) = identity.changed() => Ok(()),
            changed = roots.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

type Serving = watch::Receiver<Option<Identity>>;

/// The serving certificate: the administrator's files, or one of the cluster's that follows the node's addresses.
fn serving_identity(
    config: &Arc<Config>,
    client: &kube::Client,
    node: &NodeHandle,
    authorities: watch::Receiver<Roots>,
) -> anyhow::Result<(Serving, Vec<tokio::task::JoinHandle<()>>)> {
    let kubelet = &config.kubelet;
    if !kubelet.tls_cert_file.is_empty() {
        let (certificate, key) = (kubelet.tls_cert_file.clone().into(), kubelet.tls_private_key_file.clone().into());
        let files = Files { certificate, key };
        let (sender, current) = watch::channel(Some(files.read()?));
        return Ok((current, vec![tokio::spawn(files.follow(sender))]));
    }
    let stored = Identity::load(&config.layout.serving_pem()).unwrap_or_else(|error| {
        tracing::warn!(%error, "stored serving certificate cannot be used, another will be asked for");
        None
    });
    let (sender, current) = watch::channel(stored);
    let (purpose, wanted) = watch::channel(None);
    let rotation = Rotation {
        client: client.clone(),
        node_name: config.node.node_name.clone(),
        path: config.layout.serving_pem(),
        purpose: wanted,
        authorities,
        current: sender,
    };
    let name = config.node.node_name.clone();
    let (mut addresses, mut registered) = (node.addresses.clone(), node.uid.clone());
    let following = async move {
        // The signer only approves what the Node object says, so there has to be one.
        if registered.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let ips = addresses.borrow_and_update().clone();
            if !ips.is_empty() {
                purpose.send_replace(Some(Purpose::Serving { dns: vec![name.clone()], ips }));
            }
            if addresses.changed().await.is_err() {
                return;
            }
        }
    };
    Ok((current, vec![tokio::spawn(rotation.run()), tokio::spawn(following)]))
}
