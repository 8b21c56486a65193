//! What the types of a command leave open: each field with its bounds, and a way to set it to anything.
//!
//! **Owns** the list of fields that encoding has to check. **Must never** be shorter than what the decoder checks. **Read next**: `corpus.rs`.

use ledger_core::command::{Command, LimitKeys, Lines};
use ledger_core::order::Report;
use ledger_core::{LedgerTime, LimitKey, Line, OfferKey, Policy, Quantity, SaleId, Sku, Slot, limits};

/// A field, values at its bounds and beyond, and how it is set.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) edges: Vec<u64>,
    pub(crate) set: fn(&mut Command, u64),
}

fn field(name: &'static str, edges: &[u64], set: fn(&mut Command, u64)) -> Field {
    Field { name, edges: edges.to_vec(), set }
}

/// The fields of a command.
pub(crate) fn fields(command: &Command) -> Vec<Field> {
    match command {
        Command::Reserve { .. } => vec![
            field("keys", &KEYS, |c, n| *keys_of(c) = keys(n)),
            field("lines", &LINES, |c, n| *lines_of(c) = lines(n)),
            field("hold_ms", &[0, 1, limits::HOLD_MS_MAX + 1, u64::MAX], |c, n| {
                let Command::Reserve { hold_ms, .. } = c else { unreachable!() };
                *hold_ms = Some(n);
            }),
        ],
        Command::Extend { .. } => vec![
            field("replaces", &[0, u64::MAX], |c, n| {
                let Command::Extend { replaces, .. } = c else { unreachable!() };
                *replaces = LedgerTime(n);
            }),
            field("hold_ms", &[0, 1, u64::MAX], |c, n| {
                let Command::Extend { hold_ms, .. } = c else { unreachable!() };
                *hold_ms = n;
            }),
        ],
        Command::Confirm { .. } | Command::Return { .. } => {
            vec![field("lines", &LINES, |c, n| *lines_of(c) = lines(n))]
        }
        Command::CreateProduct { .. } | Command::PutOffer { .. } => of_policy(),
        Command::Adjust { .. } => vec![field("delta", &[0, 1, u64::MAX, 1 << 48, (1 << 48) + 1, 1 << 63], |c, n| {
            let Command::Adjust { delta, .. } = c else { unreachable!() };
            *delta = n as i64;
        })],
        Command::OwnSlots { .. } => vec![
            field("ranges", &[0, 1, 2_048, 2_049], |c, n| *ranges_of(c) = ranges(n, 2)),
            field("touching", &[1, 2, 99], |c, n| *ranges_of(c) = ranges(n, 1)),
            field("repeated", &[1, 2, 3], |c, n| *ranges_of(c) = ranges(n, 0)),
            field("from", &[0, 16, 17, 18], |c, n| {
                if let Some(first) = ranges_of(c).first_mut() {
                    first.0 = slot(n);
                }
            }),
        ],
        Command::Configure { .. } => vec![field("remembered", &[0, u64::MAX], |c, n| {
            let Command::Configure { settings } = c else { unreachable!() };
            settings.remembered_max = n;
        })],
        Command::SwitchBehaviour { .. } => vec![field("version", &[0, 2, 65_535], |c, n| {
            let Command::SwitchBehaviour { version } = c else { unreachable!() };
            *version = n as u16;
        })],
        other => of_orders(other),
    }
}

const KEYS: [u64; 4] = [0, 1, 4, 5];
const LINES: [u64; 5] = [0, 1, 16, 17, 64];
const LEASE: [u64; 5] = [0, 99, 100, 3_600_000, 3_600_001];

fn of_orders(command: &Command) -> Vec<Field> {
    match command {
        Command::PlaceOrder { reserve, .. } => {
            let pay = field("pay_within_ms", &[0, 1, u64::MAX], |c, n| {
                let Command::PlaceOrder { details, .. } = c else { unreachable!() };
                details.pay_within_ms = n;
            });
            let of_reserve = [
                field("keys", &KEYS, |c, n| *keys_of(c) = keys(n)),
                field("lines", &LINES, |c, n| *lines_of(c) = lines(n)),
            ];
            std::iter::once(pay).chain(of_reserve.into_iter().filter(|_| reserve.is_some())).collect()
        }
        Command::ClaimOrders { .. } => vec![
            field("max", &[0, 1, 1_000, 1_001, u32::MAX as u64], |c, n| {
                let Command::ClaimOrders { max, .. } = c else { unreachable!() };
                *max = n as u32;
            }),
            field("lease_ms", &LEASE, |c, n| {
                let Command::ClaimOrders { lease_ms, .. } = c else { unreachable!() };
                *lease_ms = n;
            }),
            field("attempt_ms", &[0, 3_600_000, 3_600_001, u64::MAX], |c, n| {
                let Command::ClaimOrders { attempt_ms, .. } = c else { unreachable!() };
                *attempt_ms = n;
            }),
        ],
        Command::Heartbeat { .. } => vec![field("lease_ms", &LEASE, |c, n| {
            let Command::Heartbeat { lease_ms, .. } = c else { unreachable!() };
            *lease_ms = n;
        })],
        Command::ReportOrder { report: Report::Intent { .. }, .. } => {
            vec![field("generation", &[0, 1, u32::MAX as u64], |c, n| {
                let Command::ReportOrder { report: Report::Intent { generation, .. }, .. } = c else { unreachable!() };
                *generation = n as u32;
            })]
        }
        Command::ReportOrder { report: Report::AwaitBuyer { .. }, .. } => {
            vec![field("secret", &[0, 1, 512, 513], |c, n| {
                let Command::ReportOrder { report: Report::AwaitBuyer { secret }, .. } = c else { unreachable!() };
                *secret = "s".repeat(n.min(600) as usize).into();
            })]
        }
        Command::ReportOrder { report: Report::Retry { .. } | Report::GiveBack { .. }, .. } => {
            vec![field("after_ms", &[0, 86_400_000, 86_400_001, u64::MAX], |c, n| {
                let Command::ReportOrder {
                    report: Report::Retry { after_ms, .. } | Report::GiveBack { after_ms }, ..
                } = c
                else {
                    unreachable!()
                };
                *after_ms = n;
            })]
        }
        _ => vec![],
    }
}

fn of_policy() -> Vec<Field> {
    vec![
        field("opens_at", &[0, 1_700_000_089_999, 1_700_000_090_000, u64::MAX], |c, n| {
            policy_of(c).opens_at = Some(LedgerTime(n));
        }),
        field("closes_at", &[0, u64::MAX], |c, n| policy_of(c).closes_at = Some(LedgerTime(n))),
        field("per_key_max", &[0, 1, 1_000_000, 1_000_001], |c, n| policy_of(c).per_key_max = Some(n as u32)),
        field("per_order_min", &[0, 1, 5, 6], |c, n| policy_of(c).per_order_min = n as u32),
        field("per_order_max", &[0, 1, 1_000_000, 1_000_001], |c, n| policy_of(c).per_order_max = n as u32),
        field("hold_ms_default", &[0, 1, 120_000, 120_001], |c, n| policy_of(c).hold_ms_default = n),
        field("hold_ms_max", &[0, 59_999, 60_000, 604_800_000, 604_800_001], |c, n| policy_of(c).hold_ms_max = n),
        field("low_stock_at", &[0, 1 << 48, (1 << 48) + 1], |c, n| policy_of(c).low_stock_at = n),
    ]
}

fn policy_of(command: &mut Command) -> &mut Policy {
    match command {
        Command::CreateProduct { policy, .. } | Command::PutOffer { policy, .. } => policy,
        other => unreachable!("{other:?} has no policy"),
    }
}

fn keys_of(command: &mut Command) -> &mut LimitKeys {
    match command {
        Command::Reserve { keys, .. } | Command::PlaceOrder { reserve: Some((keys, _)), .. } => keys,
        other => unreachable!("{other:?} has no keys"),
    }
}

fn lines_of(command: &mut Command) -> &mut Lines {
    match command {
        Command::Reserve { lines, .. } | Command::PlaceOrder { reserve: Some((_, lines)), .. } => lines,
        Command::Confirm { lines, .. } | Command::Return { lines, .. } => lines.get_or_insert_default(),
        other => unreachable!("{other:?} has no lines"),
    }
}

fn ranges_of(command: &mut Command) -> &mut Vec<(Slot, Slot)> {
    let Command::OwnSlots { ranges, .. } = command else { unreachable!("{command:?} has no slots") };
    ranges
}

fn slot(n: u64) -> Slot {
    Slot::new((n % u64::from(limits::SLOTS)) as u16).expect("below the number of slots")
}

/// So many ranges of one slot each, each so far behind the one before.
fn ranges(n: u64, step: u64) -> Vec<(Slot, Slot)> {
    (0..n.min(3_000)).map(|i| (slot(i * step), slot(i * step))).collect()
}

fn keys(n: u64) -> LimitKeys {
    (0..n.min(70)).map(|i| LimitKey::new(format!("k{i}")).expect("a key")).collect()
}

fn lines(n: u64) -> Lines {
    let offer = |i: u64| OfferKey { sku: Sku::new(format!("{{t}}{i}")).expect("a SKU"), sale: None };
    (0..n.min(70)).map(|i| Line { offer: offer(i), quantity: Quantity::new(1).expect("one") }).collect()
}

/// The largest command there is: an order of the most lines with the longest names, the most keys, and as much sealed content as is allowed.
pub(crate) fn largest_order(like: Command) -> Command {
    let Command::PlaceOrder { id, mut details, .. } = like else { unreachable!("an order is wanted") };
    let name = |n: usize, max: usize| format!("{n:0>max$}");
    let sealed = || ledger_core::order::Sealed::new(vec![7; limits::SEALED_BYTES_MAX]).expect("at the bound");
    (details.payment, details.contact) = (sealed(), sealed());
    let offer = |n| OfferKey {
        sku: Sku::new(name(n, limits::SKU_BYTES_MAX)).expect("a SKU"),
        sale: Some(SaleId::new(name(n, limits::SALE_ID_BYTES_MAX)).expect("a sale")),
    };
    let quantity = Quantity::new(limits::QUANTITY_MAX.into()).expect("at the bound");
    let lines = (0..limits::LINES_MAX).map(|n| Line { offer: offer(n), quantity }).collect();
    let key = |n| LimitKey::new(name(n, limits::LIMIT_KEY_BYTES_MAX)).expect("a key");
    Command::PlaceOrder { id, details, reserve: Some(((0..limits::LIMIT_KEYS_MAX).map(key).collect(), lines)) }
}
