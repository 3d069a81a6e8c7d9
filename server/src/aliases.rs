//! Use case: set, list and delete aliases.

use diptych_index::{Alias, AliasChange, RequestKey};

use crate::collections::check_name_at;
use crate::error::{Error, Result};
use crate::page::Mark;
use crate::requests::Answer;
use crate::service::{DEFAULT_PAGE_SIZE, Service, named_at};

impl Service {
    /// Points an alias at a collection; gives the one it pointed at before. `expected` is what it must point at now, empty for
    /// nothing.
    ///
    /// # Errors
    /// A bad name, one that a collection has, a collection that is missing, ABORTED `ALIAS_MISMATCH`.
    pub async fn set_alias(
        &self,
        alias: Alias,
        expected: Option<String>,
        request: Option<RequestKey>,
    ) -> Result<Option<String>> {
        self.admit()?;
        check_name_at("alias.name", &alias.name)?;
        let work = async {
            let target = self.collection_at("alias.collection", &alias.collection).await?;
            if target.spec.name != alias.collection {
                let text = format!("is an alias of {}: name the collection", target.spec.name);
                return Err(Error::field("alias.collection", text));
            }
            let change = AliasChange {
                name: alias.name,
                collection: Some(alias.collection),
                expected: expected.map(|name| Some(name).filter(|name| !name.is_empty())),
                ..AliasChange::default()
            };
            // What has the alias's name, if anything, is a collection.
            let moved = self.engine.change_alias(change).await;
            Ok(Answer::Alias(moved.map_err(|error| named_at("alias.name", error))?))
        };
        match self.requests.once(request, work).await? {
            Answer::Alias(previous) => Ok(previous),
            _ => Err(Error::internal("a request has the answer of another method")),
        }
    }

    /// A page of aliases by name, and the token of the next.
    ///
    /// # Errors
    /// A bad size or token.
    pub async fn list_aliases(
        &self,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Alias>, String)> {
        /// Listings of aliases differ in nothing but their page.
        const QUERY: [u8; 32] = *b"diptych.v1.ListAliases..........";
        self.admit()?;
        let sizes = (DEFAULT_PAGE_SIZE, self.limits.page_size);
        let size = Self::bounded("page_size", page_size, sizes)?;
        let after = self.pages.read(&QUERY, page_token)?.map(|mark| mark.id);
        let mut rest = self.engine.aliases().await?;
        rest.retain(|alias| after.as_ref().is_none_or(|after| alias.name > *after));
        let more = rest.len() > size;
        rest.truncate(size);
        let last = rest.last().filter(|_| more).map(|last| last.name.clone());
        let mark = last.map(|id| Mark::listed(0, id));
        let token = mark.map(|mark| self.pages.issue(&QUERY, &mark));
        Ok((rest, token.unwrap_or_default()))
    }

    /// Deletes an alias; its collection stays.
    ///
    /// # Errors
    /// NOT_FOUND `ALIAS_NOT_FOUND`.
    pub async fn delete_alias(&self, name: &str, request: Option<RequestKey>) -> Result<()> {
        self.admit()?;
        check_name_at("name", name)?;
        let work = async {
            let change = AliasChange { name: name.to_owned(), ..AliasChange::default() };
            let gone = self.engine.change_alias(change).await;
            gone.map(|_| Answer::Done).map_err(|error| match error {
                // A collection has the name: then there is no such alias.
                diptych_index::Error::CollectionExists { name } => {
                    diptych_index::Error::AliasMissing { name }.into()
                }
                error => Error::from(error),
            })
        };
        let done = self.requests.once(request, work).await;
        done.map(|_| ()).map_err(|error| error.at("name"))
    }
}
