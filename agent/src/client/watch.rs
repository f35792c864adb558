//! What happens to a collection, decoded into types that hold only what is used. How it is followed is the `reflector`'s.

use std::mem;

pub use reflector::{Collection, describe};
use reflector::{Reflector, Told};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// What happened to a collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    /// These are all objects there are.
    Replaced(Vec<T>),
    /// One was added or modified.
    Applied(T),
    /// One was deleted.
    Deleted(T),
}

/// Follows a collection until the receiver is dropped. The queue is bounded: a slow consumer slows the connection down,
/// and nothing piles up here.
#[must_use]
pub fn follow<T: DeserializeOwned + Send + 'static>(
    client: kube::Client,
    collection: Collection,
) -> mpsc::Receiver<Change<T>> {
    follow_map(client, collection, |item: T| item)
}

/// [`follow`] for objects that are decoded whole and trimmed by a function of the consumer's, page by page.
#[must_use]
pub fn follow_map<T, O, F>(client: kube::Client, collection: Collection, trim: F) -> mpsc::Receiver<Change<O>>
where
    T: DeserializeOwned + Send + 'static,
    O: Send + 'static,
    F: Fn(T) -> O + Send + Sync + 'static,
{
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut reflector = Reflector::new(client, collection);
        let mut listed = Vec::new();
        loop {
            // What is cancelled here is not gone on with.
            let told = tokio::select! {
                told = reflector.next::<T>() => told,
                () = sender.closed() => return,
            };
            let change = match told {
                Told::Page { items, is_first, is_last } => {
                    if is_first {
                        listed.clear();
                    }
                    listed.extend(items.into_iter().map(&trim));
                    if !is_last {
                        continue;
                    }
                    Change::Replaced(mem::take(&mut listed))
                }
                Told::Applied(item) => Change::Applied(trim(item)),
                Told::Deleted(item) => Change::Deleted(trim(item)),
            };
            if sender.send(change).await.is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::client::testing::answered;

    #[derive(Debug, Deserialize)]
    struct Item {
        name: String,
    }

    #[tokio::test(start_paused = true)]
    async fn pages_become_one_change_and_a_dropped_receiver_ends_the_task() {
        let page = |name: &str, next: &str| {
            json!({"metadata": {"resourceVersion": "7", "continue": next}, "items": [{"name": name}]}).to_string()
        };
        let event = json!({"type": "ADDED", "object": {"name": "c", "metadata": {"resourceVersion": "8"}}});
        let answers: VecDeque<String> = [page("a", "t"), page("b", ""), format!("{event}\n")].into();
        let answers = Arc::new(Mutex::new(answers));
        let script = Arc::clone(&answers);
        let client = answered(move |_| script.lock().unwrap().pop_front().map(|text| (200, text)));
        let mut changes = follow_map(client, Collection::all("/api/v1/things"), |item: Item| item.name);
        assert_eq!(changes.recv().await, Some(Change::Replaced(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(changes.recv().await, Some(Change::Applied("c".to_owned())));
        drop(changes);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&answers), 1, "the client, and its copy of the script, are gone");
    }
}
