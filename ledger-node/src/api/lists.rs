//! Pages of products and sales over all shards: of the shards with a replica here, and of the others from the nodes that lead them.
//!
//! **Owns** the asking of those nodes and the joining of their pages. **Must never** leave a shard out, or ask on behalf of a node that asks.
//! **Read next**: [`super::reads`], [`super::forward`].

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{join, try_join_all};
use ledger_core::Ledger;
use ledger_core::types::{SaleId, Sku};
use ledger_core::view::{OfferView, ProductView};
use ledger_proto::{Cause, Invalid, NotNow, Reply, names, status, v1, views};
use tonic::{Request, Status};

use super::Api;
use super::forward::mark_shards;
use super::places::SourcePlace;
use super::reads::{Consistency, ReadFailure, Reader, elsewhere};
use crate::limits::{FORWARD_GRACE, PAGE_OFFERS_MAX, RETRY_ELECTION_MS};
use crate::shard::Shard;

/// Shards with a replica here, and those without by the client address of their leader.
pub struct Spread {
    /// With a replica here.
    pub here: Vec<Arc<Shard>>,
    /// Led there, no replica here.
    pub away: BTreeMap<Arc<str>, Vec<u32>>,
}

/// Where the shards of a list or a watch are: all of the cluster, or `only` these, which must be here.
///
/// # Errors
/// The node does not serve, or a shard is not here and its leader is not known (or may not be asked).
pub fn spread(api: &Api, only: Option<&[u32]>) -> Result<Spread, NotNow> {
    api.serving()?;
    let placement = api.node.placement();
    let all = placement.iter().flat_map(|placement| &placement.shards).map(|shard| shard.shard);
    let wanted: Vec<u32> = only.map_or_else(|| all.collect(), <[u32]>::to_vec);
    let table = api.node.table();
    let mut spread = Spread { here: Vec::new(), away: BTreeMap::new() };
    for shard in wanted {
        if let Some(here) = table.shards().iter().find(|here| here.id() == shard) {
            spread.here.push(here.clone());
            continue;
        }
        match api.node.leader_addr_of(shard).filter(|_| only.is_none()) {
            Some(leader) => spread.away.entry(leader).or_default().push(shard),
            None => return Err(elsewhere(api, shard)),
        }
    }
    Ok(spread)
}

/// Items of some shards, and whether there are more behind them.
type Page<T> = (Vec<T>, bool);

impl Reader<'_> {
    /// Products by SKU over all shards, after `after`, at most `max`; and whether there are more.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn products(&self, after: Option<&Sku>, max: usize) -> Result<Page<ProductView>, ReadFailure> {
        let Spread { here, away } = spread(self.api, self.only)?;
        let _place = self.place(&away)?;
        let ask = |(leader, shards): (Arc<str>, Vec<u32>)| {
            let request = v1::ListProductsRequest {
                after: after.map(|sku| sku.as_str().to_owned()).unwrap_or_default(),
                max: max as u32,
                consistency: self.wire_consistency(),
            };
            async move {
                let Some(mut client) = self.api.forward.ledger(&leader) else { return Err(unanswered(&leader)) };
                let request = self.marked(request, &shards);
                let asked = async move { client.list_products(request).await };
                let answer = self.answered(&leader, asked).await?;
                let views = answer.products.into_iter().map(views::product_from_wire).collect::<Result<Vec<_>, _>>();
                Ok((views.map_err(|why| misunderstood(&leader, &why))?, !answer.next.is_empty()))
            }
        };
        let mine = self.pages(&here, |ledger| ledger.products_page(after, max, PAGE_OFFERS_MAX));
        let (mine, theirs) = join(mine, try_join_all(away.into_iter().map(ask))).await;
        Ok(joined(mine?, theirs?, max, |product| product.sku.clone(), |product| product.offers.len()))
    }

    /// Offers in sales by (sale, SKU) over all shards, after `after`, at most `max`; and whether there are more.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn sales(
        &self,
        sale: Option<&SaleId>,
        after: Option<(&SaleId, &Sku)>,
        max: usize,
    ) -> Result<Page<OfferView>, ReadFailure> {
        let Spread { here, away } = spread(self.api, self.only)?;
        let _place = self.place(&away)?;
        let ask = |(leader, shards): (Arc<str>, Vec<u32>)| {
            let request = v1::ListSalesRequest {
                sale: names::sale_to_wire(sale),
                after: after.map(|(sale, sku)| format!("{sale} {sku}")).unwrap_or_default(),
                max: max as u32,
                consistency: self.wire_consistency(),
            };
            async move {
                let Some(mut client) = self.api.forward.ledger(&leader) else { return Err(unanswered(&leader)) };
                let request = self.marked(request, &shards);
                let asked = async move { client.list_sales(request).await };
                let answer = self.answered(&leader, asked).await?;
                let views = answer.offers.into_iter().map(views::offer_from_wire).collect::<Result<Vec<_>, _>>();
                Ok((views.map_err(|why| misunderstood(&leader, &why))?, !answer.next.is_empty()))
            }
        };
        let page = |ledger: &Ledger| {
            let mut offers = ledger.sales(sale, after, max + 1);
            let more = offers.len() > max;
            offers.truncate(max);
            (offers, more)
        };
        let (mine, theirs) = join(self.pages(&here, page), try_join_all(away.into_iter().map(ask))).await;
        Ok(joined(mine?, theirs?, max, |offer| (offer.offer.sale.clone(), offer.offer.sku.clone()), |_| 1))
    }

    /// A place for a list that other nodes are asked for, too.
    fn place(&self, away: &BTreeMap<Arc<str>, Vec<u32>>) -> Result<Option<SourcePlace>, NotNow> {
        let source = self.source.filter(|_| !away.is_empty());
        source.map(|source| self.api.lists.take(source)).transpose()
    }

    /// Pages of the shards here, each confirmed first.
    async fn pages<T>(&self, here: &[Arc<Shard>], page: impl Fn(&Ledger) -> Page<T>) -> Result<Vec<Page<T>>, NotNow> {
        let confirmed = try_join_all(here.iter().map(|shard| self.confirmed(shard))).await?;
        let mut all = Vec::new();
        for (shard, confirmed) in here.iter().zip(confirmed) {
            all.push(self.look(shard, confirmed, &page)?.0);
        }
        Ok(all)
    }

    fn wire_consistency(&self) -> i32 {
        match self.consistency {
            Consistency::Linearizable => v1::Consistency::Linearizable.into(),
            Consistency::Stale => v1::Consistency::Stale.into(),
        }
    }

    fn marked<T>(&self, request: T, shards: &[u32]) -> Request<T> {
        let mut request = Request::new(request);
        request.set_timeout(self.within);
        mark_shards(&mut request, shards);
        request
    }

    /// What the other node answered in time; its own *not now* is passed through.
    async fn answered<T>(
        &self,
        leader: &Arc<str>,
        asked: impl Future<Output = Result<tonic::Response<T>, Status>> + Send + 'static,
    ) -> Result<T, NotNow>
    where
        T: Send + 'static,
    {
        let within = self.within + FORWARD_GRACE;
        match self.api.forward.detached_list(leader, within, asked).await {
            Some(Ok(answer)) => Ok(answer.into_inner()),
            Some(Err(refused)) => match status::reply(&refused) {
                Some(Reply::NotNow(why)) => Err(why),
                _ => Err(unanswered(leader)),
            },
            None => Err(unanswered(leader)),
        }
    }
}

/// One page of many, in order: as far as each that has more behind it reaches, and no more than `max` items and [`PAGE_OFFERS_MAX`] offers.
fn joined<T, K: Ord>(
    mine: Vec<Page<T>>,
    theirs: Vec<Page<T>>,
    max: usize,
    key: impl Fn(&T) -> K,
    offers: impl Fn(&T) -> usize,
) -> Page<T> {
    let (mut all, mut reach) = (Vec::new(), None);
    for (items, behind) in mine.into_iter().chain(theirs) {
        let last = items.last().map(&key).filter(|_| behind);
        reach = [reach, last].into_iter().flatten().min();
        all.extend(items);
    }
    all.sort_by_cached_key(&key);
    let (mut kept, mut sum) = (0, 0);
    for item in all.iter().take(max) {
        sum += offers(item);
        if reach.as_ref().is_some_and(|reach| key(item) > *reach) || (kept > 0 && sum > PAGE_OFFERS_MAX) {
            break;
        }
        kept += 1;
    }
    let more = reach.is_some() || kept < all.len();
    all.truncate(kept);
    (all, more)
}

fn unanswered(leader: &str) -> NotNow {
    let why = format!("the node at {leader}, which leads shards that have no replica here, did not answer");
    NotNow::new(Cause::NotServing, why, RETRY_ELECTION_MS)
}

fn misunderstood(leader: &str, why: &Invalid) -> NotNow {
    NotNow::new(Cause::Other, format!("the answer of the node at {leader} is not understood: {why}"), RETRY_ELECTION_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items are numbers; those of the tens have as many offers as a page may have, others one.
    fn page_of(pages: &[(&[u32], bool)], max: usize) -> (Vec<u32>, bool) {
        let pages = pages.iter().map(|(items, more)| (items.to_vec(), *more)).collect();
        let offers = |item: &u32| if item.is_multiple_of(10) { PAGE_OFFERS_MAX } else { 1 };
        joined(pages, Vec::new(), max, |item| *item, offers)
    }

    #[test]
    fn a_page_reaches_as_far_as_the_shortest_of_its_parts_that_has_more() {
        assert_eq!(page_of(&[(&[1, 4], false), (&[2, 3], false)], 9), (vec![1, 2, 3, 4], false));
        assert_eq!(page_of(&[(&[1, 4], false), (&[2, 3], false)], 3), (vec![1, 2, 3], true));
        assert_eq!(page_of(&[(&[1, 4, 9], false), (&[2, 3], true)], 9), (vec![1, 2, 3], true), "there may be a 5");
        assert_eq!(page_of(&[(&[1, 4], true), (&[2, 6], true)], 9), (vec![1, 2, 4], true));
        assert_eq!(page_of(&[(&[], false), (&[], false)], 9), (vec![], false));
    }

    #[test]
    fn a_page_has_few_offers_and_one_item_at_least() {
        assert_eq!(page_of(&[(&[10, 11, 12], false)], 9), (vec![10], true));
        assert_eq!(page_of(&[(&[1, 2, 10, 11], false)], 9), (vec![1, 2], true));
        assert_eq!(page_of(&[(&[20], false)], 9), (vec![20], false));
    }
}
