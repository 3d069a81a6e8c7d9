//! What a server does besides items, in between kills: merges, aliases, snapshots and restores, changes of bundle.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use diptych_proto::v1;
use diptych_proto::v1::admin_service_client::AdminServiceClient;
use diptych_proto::v1::collection_service_client::CollectionServiceClient;
use diptych_proto::v1::operation_service_client::OperationServiceClient;
use diptych_tests::Api;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tonic::Status;
use tonic::transport::Channel;

use super::change;
use crate::history::{Model, THINGS, VECTORS, listed, same_content};

/// The alias that is moved to and fro.
const ALIAS: &str = "now";
/// The collection that a snapshot is restored to, and taken away again.
const RESTORED: &str = "restored";

/// What is known of what a server keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Keeper(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Where the alias was acknowledged to point.
    alias: Option<&'static str>,
    /// Where it may point besides: asked for, not answered.
    doubt: Option<&'static str>,
    /// Calls that went through.
    done: usize,
    /// Changes of bundle that were carried to their end.
    changes: usize,
}

impl Keeper {
    /// Calls that went through, and changes of bundle that were carried to their end.
    pub(super) fn told(&self) -> (usize, usize) {
        let known = self.known();
        (known.done, known.changes)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap()
    }

    /// Counts what went through.
    fn count<T>(&self, answer: Result<T, Status>) -> Result<T, Status> {
        self.known().done += usize::from(answer.is_ok());
        answer
    }

    /// Merges, moves the alias and makes snapshots until the server is gone.
    pub(super) async fn disturb(self, channel: Channel, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut admin = AdminServiceClient::new(channel.clone());
        let mut collections = CollectionServiceClient::new(channel.clone());
        loop {
            let collection = if rng.random() { VECTORS } else { THINGS };
            let answer = match rng.random_range(0..10) {
                0..3 => {
                    let request = v1::CompactRequest { collection: collection.to_owned() };
                    self.count(admin.compact(request).await).map(drop)
                }
                3..6 => self.move_alias(&mut collections, collection).await,
                6 => self.count(change::begin(&channel).await),
                _ => {
                    let collection = collection.to_owned();
                    let request = v1::CreateSnapshotRequest { collection, ..Default::default() };
                    self.count(collections.create_snapshot(request).await).map(drop)
                }
            };
            // Refused for the disk or for too many at once is no end; gone is.
            let alive = collections.list_collections(v1::ListCollectionsRequest::default()).await;
            if answer.is_err() && alive.is_err() {
                return;
            }
        }
    }

    async fn move_alias(
        &self,
        collections: &mut CollectionServiceClient<Channel>,
        collection: &'static str,
    ) -> Result<(), Status> {
        self.known().doubt = Some(collection);
        let alias = v1::Alias { name: ALIAS.to_owned(), collection: collection.to_owned() };
        let request = v1::SetAliasRequest { alias: Some(alias), ..Default::default() };
        self.count(collections.set_alias(request).await)?;
        let mut known = self.known();
        known.doubt = None;
        known.alias = Some(collection);
        Ok(())
    }

    /// After a start, nobody writing: the alias points where it may, every snapshot that is listed is whole, and one made now
    /// gives back what is there now.
    pub(super) async fn check(
        &self,
        api: &Api,
        channel: Channel,
        model: &Model,
        finish: bool,
    ) -> Result<()> {
        let mut collections = CollectionServiceClient::new(channel.clone());
        let aliases = collections.list_aliases(v1::ListAliasesRequest::default()).await?;
        let now = aliases.into_inner().aliases.into_iter().find(|alias| alias.name == ALIAS);
        let now = now.map(|alias| alias.collection);
        {
            let mut known = self.known();
            let fits =
                now.as_deref() == known.alias || (now.is_some() && now.as_deref() == known.doubt);
            ensure!(fits, "the alias points at {now:?}: {known:?}");
            known.alias = [VECTORS, THINGS].into_iter().find(|name| now.as_deref() == Some(name));
            known.doubt = None;
        }
        // What is not finished now is carried over one more kill.
        if finish && change::finish(api, &channel, model).await? {
            self.known().changes += 1;
        }
        self.snapshots(api, channel, model).await
    }

    async fn snapshots(&self, api: &Api, channel: Channel, model: &Model) -> Result<()> {
        let mut collections = CollectionServiceClient::new(channel.clone());
        let request =
            v1::CreateSnapshotRequest { collection: THINGS.to_owned(), ..Default::default() };
        let begun = self.count(collections.create_snapshot(request).await)?;
        ended(&channel, begun.into_inner().operation).await.context("a snapshot")?;
        // What a restore that was killed left: nothing.
        let there = crate::history::collections(api).await?;
        ensure!(!there.iter().any(|collection| collection.name == RESTORED), "{there:?}");
        let list = v1::ListSnapshotsRequest::default();
        let snapshots = collections.list_snapshots(list).await?.into_inner().snapshots;
        for (place, snapshot) in snapshots.iter().enumerate() {
            let (name, collection) = (snapshot.name.clone(), RESTORED.to_owned());
            // The newest is the one made now; of the older ones, made amid writes, each must be whole.
            if place < 2 {
                let request = v1::RestoreSnapshotRequest {
                    name: name.clone(),
                    collection,
                    ..Default::default()
                };
                let begun = collections.restore_snapshot(request).await?.into_inner();
                ended(&channel, begun.operation)
                    .await
                    .with_context(|| format!("a restore of {snapshot:?}"))?;
                let found = listed(api, RESTORED).await?;
                if place == 0 {
                    let items = model.items.iter().filter(|(key, _)| key.0 == THINGS);
                    let expected: Vec<_> =
                        items.map(|(key, (input, _))| (key.1.as_str(), input)).collect();
                    ensure!(
                        found.len() == expected.len(),
                        "{} of {} restored",
                        found.len(),
                        expected.len()
                    );
                    for (item, (id, input)) in found.iter().zip(expected) {
                        ensure!(item.id == id, "{id} is not restored");
                        same_content(input, item).with_context(|| format!("{id}, restored"))?;
                    }
                }
                let request =
                    v1::DeleteCollectionRequest { name: RESTORED.to_owned(), ..Default::default() };
                collections.delete_collection(request).await?;
            }
            let request = v1::DeleteSnapshotRequest { name, ..Default::default() };
            collections.delete_snapshot(request).await?;
        }
        Ok(())
    }
}

/// Waits for an operation, which must end well.
pub(super) async fn ended(channel: &Channel, operation: Option<v1::Operation>) -> Result<()> {
    let name = operation.context("no operation")?.name;
    let mut operations = OperationServiceClient::new(channel.clone());
    loop {
        let request = v1::WaitOperationRequest { name: name.clone(), timeout: None };
        let operation = operations.wait_operation(request).await?.into_inner().operation;
        let operation = operation.context("no operation")?;
        if operation.done {
            let well = matches!(operation.outcome, Some(v1::operation::Outcome::Result(_)));
            ensure!(well, "{operation:?}");
            return Ok(());
        }
    }
}
