//! The settings of all shards: how long what has ended is remembered, and how much of it.
//!
//! **What it is.** They are kept in the placement (the cluster's intent) and proposed to each shard by its leader, before the shard learns that
//! placement's generation: a shard that knows the generation has the settings.
//! **Owns** their bounds and what operators are told of them. **Must never** change a shard's settings past its log.
//! **Read next**: [`crate::intent`], [`crate::steward`].

use futures::future::join_all;
use ledger_proto::v1;

use crate::intent::ChangeError;
use crate::limits;
use crate::meta::{MetaCommand, Settings};
use crate::node::{AdminError, Node};

impl Node {
    /// Admin.GetSettings: as of now, through the quorums of the meta group and of each shard here.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn settings(&self) -> Result<v1::GetSettingsResponse, AdminError> {
        let Some(running) = self.running() else {
            return Err(AdminError::NotNow("this node belongs to no cluster yet".to_owned()));
        };
        let placement = self.placement_now(&running, limits::READ_WITHIN).await?;
        let shards = self.shards();
        let confirmed = join_all(shards.iter().map(|shard| shard.read_index(limits::READ_WITHIN))).await;
        let shards = shards.iter().zip(confirmed).filter(|(_, confirmed)| confirmed.is_ok()).map(|(shard, _)| {
            let (generation, _) = shard.with_ledger(|ledger| ledger.owned_slots());
            v1::get_settings_response::Shard { shard: shard.id(), generation }
        });
        let shards = shards.collect();
        Ok(v1::GetSettingsResponse {
            settings: Some(to_wire(&placement.settings())),
            generation: placement.generation,
            shards,
        })
    }

    /// Admin.SetSettings, on the leader of the meta group. What the request does not name stays as it is.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub(crate) async fn set_settings(
        &self,
        request: &v1::SetSettingsRequest,
    ) -> Result<v1::SetSettingsResponse, ChangeError> {
        checked(request, self.config().remembered_min)?;
        let (placement, changed) = self
            .change_placement(|placement| {
                if let Some(expected) = request.expected_generation.filter(|&e| e != placement.generation) {
                    return Err(AdminError::Refused(format!(
                        "the cluster's placement is of generation {} now, not {expected}: look again (ledgerctl cluster settings show)",
                        placement.generation
                    )));
                }
                let mut settings = placement.settings();
                for (field, given) in [
                    (&mut settings.retain_sold_ms, request.retain_sold_ms),
                    (&mut settings.retain_ended_ms, request.retain_ended_ms),
                    (&mut settings.retain_refused_ms, request.retain_refused_ms),
                    (&mut settings.remembered_max, request.remembered_max),
                ] {
                    *field = given.unwrap_or(*field);
                }
                Ok(MetaCommand::SetSettings { generation: placement.generation, settings })
            })
            .await?;
        if changed {
            tracing::info!(settings = ?placement.settings, generation = placement.generation, "the settings of all shards were changed");
        }
        Ok(v1::SetSettingsResponse {
            settings: Some(to_wire(&placement.settings())),
            generation: placement.generation,
            changed,
        })
    }
}

fn to_wire(settings: &Settings) -> v1::ShardSettings {
    let Settings { retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max } = *settings;
    v1::ShardSettings { retain_sold_ms, retain_ended_ms, retain_refused_ms, remembered_max }
}

/// Every number named lies within its bounds, and at least one is named.
fn checked(request: &v1::SetSettingsRequest, remembered_min: u64) -> Result<(), AdminError> {
    let retain = (limits::RETAIN_MS_MIN, limits::RETAIN_MS_MAX);
    let all = [
        ("retain_sold_ms", request.retain_sold_ms, retain),
        ("retain_ended_ms", request.retain_ended_ms, retain),
        ("retain_refused_ms", request.retain_refused_ms, retain),
        ("remembered_max", request.remembered_max, (remembered_min, limits::REMEMBERED_MAX)),
    ];
    if all.iter().all(|(_, given, _)| given.is_none()) {
        return Err(AdminError::Invalid("no setting is named; nothing to change".to_owned()));
    }
    for (name, given, (min, max)) in all {
        if let Some(got) = given.filter(|got| !(min..=max).contains(got)) {
            return Err(AdminError::Invalid(format!("{name} is {got}, allowed are {min} to {max}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_bounds_and_an_empty_change_is_none() {
        let empty = v1::SetSettingsRequest::default();
        let checked = |request: &_| checked(request, limits::REMEMBERED_MIN);
        assert!(matches!(checked(&empty), Err(AdminError::Invalid(_))));
        let day = 24 * 3_600_000;
        assert_eq!(checked(&v1::SetSettingsRequest { retain_sold_ms: Some(day), ..empty }), Ok(()));
        for bad in [
            v1::SetSettingsRequest { retain_refused_ms: Some(limits::RETAIN_MS_MIN - 1), ..empty },
            v1::SetSettingsRequest { retain_ended_ms: Some(u64::MAX), ..empty },
            v1::SetSettingsRequest { remembered_max: Some(0), ..empty },
        ] {
            let Err(AdminError::Invalid(why)) = checked(&bad) else { panic!("{bad:?}") };
            assert!(why.contains("allowed are"), "{why}");
        }
    }
}
