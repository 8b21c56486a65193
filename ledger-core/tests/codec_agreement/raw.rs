//! Commands as bytes, written without any check: a second hand that knows the format and none of its bounds.
//!
//! **Owns** what bytes a command would have if anything went. **Must never** share code with the codec. **Read next**: `../codec_agreement.rs`.

use ledger_core::command::{Command, LimitKeys};
use ledger_core::order::{Fact, Money, Report, Sealed};
use ledger_core::{LimitKey, Line, OfferKey, Policy, SaleId};

/// An entry of these commands, whatever they are.
pub(crate) fn entry(commands: &[Command]) -> Vec<u8> {
    let mut out = Raw(vec![1]);
    out.0.extend((commands.len() as u32).to_le_bytes());
    commands.iter().for_each(|one| out.command(one));
    out.0
}

struct Raw(Vec<u8>);

impl Raw {
    fn byte(&mut self, n: u8) -> &mut Self {
        self.0.push(n);
        self
    }
    /// bincode's variable-length integer.
    fn n(&mut self, n: u64) -> &mut Self {
        match n {
            0..=250 => self.0.push(n as u8),
            251..=0xffff => {
                self.0.push(251);
                self.0.extend((n as u16).to_le_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.0.push(252);
                self.0.extend((n as u32).to_le_bytes());
            }
            _ => {
                self.0.push(253);
                self.0.extend(n.to_le_bytes());
            }
        }
        self
    }
    fn zigzag(&mut self, n: i64) -> &mut Self {
        self.n(((n << 1) ^ (n >> 63)) as u64)
    }
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }
    fn text(&mut self, text: &str) -> &mut Self {
        self.n(text.len() as u64).bytes(text.as_bytes())
    }
    fn opt<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
        self
    }
    fn opt_n(&mut self, value: Option<u64>) -> &mut Self {
        self.opt(value, |out, n| _ = out.n(n))
    }
    fn sale(&mut self, sale: Option<&SaleId>) -> &mut Self {
        self.opt(sale, |out, sale| _ = out.text(sale.as_str()))
    }
    fn offer(&mut self, offer: &OfferKey) -> &mut Self {
        self.text(offer.sku.as_str()).sale(offer.sale.as_ref())
    }
    fn lines(&mut self, lines: &[Line]) -> &mut Self {
        self.n(lines.len() as u64);
        lines.iter().for_each(|line| _ = self.offer(&line.offer).n(line.quantity.get().into()));
        self
    }
    fn opt_lines(&mut self, lines: Option<&[Line]>) -> &mut Self {
        self.opt(lines, |out, lines| _ = out.lines(lines))
    }
    fn keys(&mut self, keys: &LimitKeys) -> &mut Self {
        self.n(keys.len() as u64);
        keys.iter().map(LimitKey::as_str).for_each(|key| _ = self.text(key));
        self
    }
    fn policy(&mut self, p: &Policy) -> &mut Self {
        self.byte(u8::from(p.open)).opt_n(p.opens_at.map(|t| t.0)).opt_n(p.closes_at.map(|t| t.0));
        self.opt_n(p.per_key_max.map(u64::from)).n(p.per_order_min.into()).n(p.per_order_max.into());
        self.n(p.hold_ms_default).n(p.hold_ms_max).n(p.low_stock_at);
        self.opt(p.price.as_ref(), |out, price| _ = out.text(price.as_str()))
    }
    fn money(&mut self, money: Money) -> &mut Self {
        self.n(money.minor()).bytes(money.currency().as_bytes())
    }
    fn sealed(&mut self, sealed: &Sealed) -> &mut Self {
        self.n(sealed.as_bytes().len() as u64).bytes(sealed.as_bytes())
    }

    fn command(&mut self, command: &Command) {
        if let Some(id) = command.reservation() {
            let number = match command {
                Command::Reserve { .. } => 1,
                Command::Extend { .. } => 2,
                Command::Confirm { .. } => 3,
                Command::Release { .. } => 4,
                Command::Fence { .. } => 5,
                Command::Return { .. } => 6,
                Command::PlaceOrder { .. } => 64,
                Command::Heartbeat { .. } => 66,
                Command::ReportOrder { .. } => 67,
                Command::RecordFact { .. } => 68,
                Command::OrderByHand { .. } => 69,
                other => unreachable!("{other:?} has no id"),
            };
            self.byte(number).bytes(id.as_bytes());
        }
        match command {
            Command::Tick => self.byte(0),
            Command::Reserve { keys, lines, hold_ms, .. } => self.keys(keys).lines(lines).opt_n(*hold_ms),
            Command::Extend { replaces, hold_ms, .. } => self.n(replaces.0).n(*hold_ms),
            Command::Confirm { lines, .. } => self.opt_lines(lines.as_deref()),
            Command::Release { .. } | Command::Fence { .. } => self,
            Command::Return { lines, reference, .. } => self.opt_lines(lines.as_deref()).text(reference.as_str()),
            Command::CreateProduct { sku, policy } => self.byte(16).text(sku.as_str()).policy(policy),
            Command::PutOffer { offer, policy, expected_version } => {
                self.byte(17).offer(offer).policy(policy).opt_n(*expected_version)
            }
            Command::SetOpen { offer, open } => self.byte(18).offer(offer).byte(u8::from(*open)),
            Command::DeleteProduct { sku } => self.byte(21).text(sku.as_str()),
            Command::EndSale { sku, sale } => self.byte(19).text(sku.as_str()).text(sale.as_str()),
            Command::Receive { offer, units, reference } => {
                self.byte(24).offer(offer).n(units.get()).text(reference.as_str())
            }
            Command::Adjust { offer, delta, reason, reference, expected_version } => {
                self.byte(25).offer(offer).zigzag(*delta).text(reason.as_str()).text(reference.as_str());
                self.opt_n(*expected_version)
            }
            Command::Allot { sku, from, to, units, reference } => {
                self.byte(26).text(sku.as_str()).sale(from.as_ref()).sale(to.as_ref());
                self.n(units.get()).text(reference.as_str())
            }
            other => self.for_nodes_and_workers(other),
        };
    }

    fn for_nodes_and_workers(&mut self, command: &Command) -> &mut Self {
        match command {
            Command::Configure { settings: s } => {
                self.byte(32).n(s.retain_sold_ms).n(s.retain_ended_ms).n(s.retain_refused_ms).n(s.remembered_max)
            }
            Command::OwnSlots { generation, ranges } => {
                self.byte(33).n(*generation).n(ranges.len() as u64);
                ranges.iter().for_each(|(from, to)| _ = self.n(from.get().into()).n(to.get().into()));
                self
            }
            Command::SwitchBehaviour { version } => self.byte(34).n((*version).into()),
            Command::PlaceOrder { details, reserve, .. } => {
                self.money(details.amount).n(details.pay_within_ms).sealed(&details.payment).sealed(&details.contact);
                self.byte(u8::from(details.suspect));
                self.opt(reserve.as_ref(), |out, (keys, lines)| _ = out.keys(keys).lines(lines))
            }
            Command::ClaimOrders { slot, worker, class, max, lease_ms, attempt_ms } => {
                self.byte(65).n(slot.get().into()).text(worker.as_str()).byte(*class as u8);
                self.n((*max).into()).n(*lease_ms).n(*attempt_ms)
            }
            Command::Heartbeat { epoch, lease_ms, .. } => self.n((*epoch).into()).n(*lease_ms),
            Command::ReportOrder { epoch, report, .. } => self.n((*epoch).into()).report(report),
            Command::RecordFact { fact, .. } => match fact {
                Fact::Paid { payment, amount } => self.byte(1).text(payment.as_str()).money(*amount),
                Fact::Refunded { payment, refund } => self.byte(2).text(payment.as_str()).text(refund.as_str()),
            },
            Command::OrderByHand { what, reason, .. } => self.byte(*what as u8).text(reason.as_str()),
            other => unreachable!("{other:?} is written by the caller"),
        }
    }

    fn report(&mut self, report: &Report) -> &mut Self {
        match report {
            Report::Intent { intent, generation } => self.byte(1).text(intent.as_str()).n((*generation).into()),
            Report::AwaitBuyer { secret } => self.byte(2).text(secret.as_str()),
            Report::Unpaid { reason } => self.byte(3).text(reason.as_str()),
            Report::Notified => self.byte(4),
            Report::Retry { after_ms, reason } => self.byte(5).n(*after_ms).text(reason.as_str()),
            Report::GiveBack { after_ms } => self.byte(6).n(*after_ms),
            Report::Park { reason } => self.byte(7).text(reason.as_str()),
        }
    }
}
