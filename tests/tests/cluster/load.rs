//! Writers that know what was acknowledged to them, for tests that kill the master under them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

const WRITERS: usize = 16;
/// Objects of each writer.
const OBJECTS: usize = 8;
/// How long an answer may take while the master is there; without it a request fails at once.
const ANSWER: Duration = Duration::from_secs(10);

/// Writers at work in a thread of their own until [`Load::end`].
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<u64>>,
}

impl Load {
    pub fn start(kubeconfig: &Path, namespace: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (kubeconfig, namespace, stopped) = (kubeconfig.to_owned(), namespace.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(write_all(&kubeconfig, &namespace, &stopped))
        });
        Self { stop, thread }
    }

    /// Ends the writers; answers how many writes were acknowledged. An error is an acknowledged write that is not there,
    /// or a state that nobody wrote.
    pub fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the writers panicked")?
    }
}

async fn write_all(kubeconfig: &Path, namespace: &str, stop: &AtomicBool) -> Result<u64> {
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let api = Api::namespaced(client(kubeconfig).await?, namespace);
        writers.push(write(api, number, stop));
    }
    let mut total = 0;
    for acknowledged in futures::future::join_all(writers).await {
        total += acknowledged?;
    }
    Ok(total)
}

/// With a connection of its own.
async fn client(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// What a writer knows of one object: the value it has, `None` where it does not exist.
type Value = Option<u64>;

struct Object {
    name: String,
    acknowledged: Value,
    /// Something is to be found out: a write that was not answered may have happened or not, and after an outage what was
    /// acknowledged before it must still be there.
    asked: Option<Value>,
}

async fn write(api: Api<ConfigMap>, writer: usize, stop: &AtomicBool) -> Result<u64> {
    let named = |n| Object { name: format!("w{writer}-{n}"), acknowledged: None, asked: None };
    let mut objects: Vec<Object> = (0..OBJECTS).map(named).collect();
    let (mut count, mut acknowledged) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for at in 0..OBJECTS {
            count += 1;
            let Some(object) = objects.get_mut(at) else { continue };
            if object.asked.is_some() {
                if settle(&api, object).await.is_err() {
                    // Away. What it answers when it is back is judged then, and at the end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
            let next = (count % 7 != 6 || object.acknowledged.is_none()).then_some(count);
            if one_write(&api, object, next).await {
                acknowledged += 1;
            } else {
                objects.iter_mut().for_each(|o| _ = o.asked.get_or_insert(o.acknowledged));
            }
        }
    }
    for object in &mut objects {
        verify(&api, object).await?;
    }
    Ok(acknowledged)
}

/// Whether the write was acknowledged.
async fn one_write(api: &Api<ConfigMap>, object: &mut Object, next: Value) -> bool {
    let done = tokio::time::timeout(ANSWER, send(api, object, next)).await.is_ok_and(|sent| sent.is_ok());
    if done {
        object.acknowledged = next;
    } else {
        object.asked = Some(next);
    }
    done
}

async fn send(api: &Api<ConfigMap>, object: &Object, next: Value) -> kube::Result<()> {
    let name = &object.name;
    let Some(value) = next else { return api.delete(name, &DeleteParams::default()).await.map(drop) };
    let body = json!({"metadata": {"name": name}, "data": {"value": value.to_string()}});
    if object.acknowledged.is_some() {
        return api.patch(name, &PatchParams::default(), &Patch::Merge(body)).await.map(drop);
    }
    let object = serde_json::from_value(body).map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await.map(drop)
}

/// Finds out what became of a write without an answer.
async fn settle(api: &Api<ConfigMap>, object: &mut Object) -> Result<()> {
    let found = tokio::time::timeout(ANSWER, api.get_opt(&object.name)).await??;
    let value = found.map(|map| map.data.unwrap_or_default().get("value").and_then(|v| v.parse().ok()).unwrap_or(0));
    let may_be = value == object.acknowledged || object.asked == Some(value);
    if may_be {
        object.acknowledged = value;
        object.asked = None;
        return Ok(());
    }
    bail!("{}: {:?} was acknowledged, {:?} asked, it has {value:?}", object.name, object.acknowledged, object.asked)
}

/// The object is as it was last acknowledged, or as it was asked to be without an answer.
async fn verify(api: &Api<ConfigMap>, object: &mut Object) -> Result<()> {
    let mut found = settle(api, object).await;
    for _ in 0..20 {
        if found.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        found = settle(api, object).await;
    }
    found
}
