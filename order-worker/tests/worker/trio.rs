//! The generic trio, for every scenario: run twice, failed in turn, crashed at every boundary (and its follower at every boundary again).

use std::collections::BTreeMap;
use std::time::Duration;

use ledger_core::order::Ending;
use order_worker::payment::Mode;

use crate::cut::Fault;
use crate::fake_provider::Manners;
use crate::world::{Besides, Scenario, run, run_twice};

/// A crash costs a lease, and then it can be late.
const SOLD_OR_LATE: &[Ending] = &[Ending::Sold, Ending::Released];

fn scenarios() -> Vec<Scenario> {
    let authorise = Mode::AuthoriseThenCapture;
    let seconds = Duration::from_secs;
    let slow = |s| Manners { slow: Some(seconds(s)), ..Manners::default() };
    let with = Scenario::new;
    vec![
        with("paid at once", "pm_good", &[Ending::Sold]),
        with("declined", "pm_declined", &[Ending::Released]),
        Scenario { mode: authorise, ..with("authorised, then captured", "pm_good", &[Ending::Sold]) },
        Scenario { mode: authorise, ..with("authorisation declined", "pm_declined", &[Ending::Released]) },
        Scenario { manners: slow(3), ..with("a provider that takes three seconds", "pm_good", &[Ending::Sold]) },
        Scenario {
            manners: Manners { charge_then_500: 1, ..Manners::default() },
            ..with("500 after it charged", "pm_good", &[Ending::Sold])
        },
        Scenario {
            manners: Manners { search_lags: true, ..Manners::default() },
            ..with("a search that lags", "pm_good", &[Ending::Sold])
        },
        Scenario {
            manners: Manners { takes_less: true, ..Manners::default() },
            ..with("another sum than asked for", "pm_good", &[Ending::Released])
        },
        Scenario { down_for: seconds(120), ..with("down for two minutes", "pm_good", &[Ending::Sold]) },
        Scenario {
            down_for: seconds(120),
            pay_within: seconds(60),
            ..with("down past the deadline", "pm_good", &[Ending::Released, Ending::Expired])
        },
        Scenario { besides: Besides::BuyerActs, ..with("the buyer acts at the bank", "pm_3ds", &[Ending::Sold]) },
        Scenario {
            besides: Besides::BuyerActs,
            mode: authorise,
            ..with("the buyer acts, authorised", "pm_3ds", &[Ending::Sold])
        },
        Scenario { besides: Besides::BuyerFails, ..with("the buyer fails at the bank", "pm_3ds", &[Ending::Released]) },
        Scenario { besides: Besides::BuyerAway, ..with("the buyer stays away", "pm_3ds", &[Ending::Released]) },
        Scenario { besides: Besides::CancelledByHand, ..with("cancelled in the dashboard", "pm_good", SOLD_OR_LATE) },
        Scenario {
            pay_within: seconds(20),
            manners: Manners { charge_then_500: 1, ..slow(4) },
            ..with("paid around the deadline", "pm_good", SOLD_OR_LATE)
        },
        Scenario {
            pay_within: seconds(12),
            manners: Manners { refund_then_500: 1, ..slow(4) },
            besides: Besides::SoldOutWhenLate,
            ..with("paid when all is gone", "pm_good", &[Ending::Sold, Ending::Released, Ending::Refunded])
        },
        Scenario {
            pay_within: seconds(12),
            manners: slow(4),
            mode: authorise,
            besides: Besides::SoldOutWhenLate,
            ..with("authorised when all is gone", "pm_good", &[Ending::Sold, Ending::Released, Ending::Refunded])
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn every_call_made_twice_has_one_effect() {
    for scenario in scenarios() {
        run_twice(&scenario).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_failed_in_turn_ends_as_it_should() {
    let mut visited = 0;
    for scenario in scenarios() {
        let boundaries = run(&scenario, None, None).await.boundaries;
        for at in 0..boundaries {
            run(&scenario, Some((at, Fault::Fail)), None).await;
            visited += 1;
        }
    }
    println!("{visited} boundaries failed");
    assert!(visited > 300, "{visited}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_at_any_boundary_is_followed_by_another() {
    let (mut visited, mut endings) = (0, BTreeMap::new());
    for scenario in scenarios() {
        let boundaries = run(&scenario, None, None).await.boundaries;
        for at in 0..boundaries {
            let ended = run(&scenario, Some((at, Fault::Crash)), None).await;
            *endings.entry((scenario.name, ended.ending)).or_insert(0) += 1;
            visited += 1;
        }
        println!("{}: {boundaries} boundaries", scenario.name);
    }
    println!("{visited} boundaries crashed at; {endings:?}");
    assert!(visited > 300, "{visited}");
    // What a crash in the wrong place makes of an order was seen, too: without these the scenarios prove little.
    for seen in [
        ("paid when all is gone", Ending::Refunded),
        ("authorised when all is gone", Ending::Released),
        ("paid around the deadline", Ending::Sold),
    ] {
        assert!(endings.contains_key(&seen), "{seen:?} was never seen: {endings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn and_so_is_its_follower() {
    let pairs = ["paid at once", "authorised, then captured", "paid when all is gone"];
    let mut visited = 0;
    for scenario in scenarios().into_iter().filter(|scenario| pairs.contains(&scenario.name)) {
        let boundaries = run(&scenario, None, None).await.boundaries;
        for at in 0..boundaries {
            for then in 0..boundaries {
                run(&scenario, Some((at, Fault::Crash)), Some((then, Fault::Crash))).await;
                visited += 1;
            }
        }
    }
    println!("{visited} pairs of boundaries crashed at");
    assert!(visited > 400, "{visited}");
}
