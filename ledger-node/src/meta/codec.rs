//! The meta group's commands and its snapshot as bytes: a format version, a number for the command, fields in a fixed order.
//!
//! All numbers are little-endian; a text is its length (2 bytes) and its bytes. Numbers of commands are frozen: one is never given to
//! another command, and a command's fields never change but under a new number. What a newer build wrote is so never dropped by an
//! older one, which stops at it. Table: `docs/storage-format.md`.
//!
//! **Owns** these bytes. **Must never** allocate by a length that it has not checked, or write what it would not read.
//! **Read next**: [`super`], which applies the commands.

use std::collections::BTreeSet;

use bytes::Bytes;
use ledger_core::limits::SLOTS;

use super::{MemberEntry, MetaCommand, Placement, Settings, ShardPlacement};
use crate::limits::{ADDRESS_BYTES_MAX, MEMBERS_MAX, META_BYTES_MAX, REPLICAS_MAX, SHARDS_MAX};

/// First byte of commands, and of snapshots in which no shard is known to have begun.
const FORMAT: u8 = 2;
/// First byte of snapshots that name the shards that have begun.
const FORMAT_BEGUN: u8 = 3;

const FOUND: u8 = 1;
const SET_SETTINGS: u8 = 2;
const SET_MEMBER_ADDRESS: u8 = 3;
const BEGUN: u8 = 4;

/// Why bytes are no command or snapshot of the meta group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetaError {
    /// Written by a newer build.
    #[error("the meta group's {what} {found} is not known to this build, which knows up to {known}")]
    Unsupported {
        /// Format or command.
        what: &'static str,
        /// The number found.
        found: u8,
        /// The newest known.
        known: u8,
    },
    /// Not what the format allows.
    #[error("malformed meta command: {0}")]
    Malformed(&'static str),
}

/// Encodes a command.
///
/// # Errors
/// It has more of something than may be read back.
pub(crate) fn encode(command: &MetaCommand) -> Result<Bytes, MetaError> {
    let mut out = vec![FORMAT];
    match command {
        MetaCommand::Found { members, shards } => {
            out.push(FOUND);
            put_members(&mut out, members);
            put_shards(&mut out, shards);
        }
        MetaCommand::SetSettings { generation, settings } => {
            out.push(SET_SETTINGS);
            put_u64(&mut out, *generation);
            put_settings(&mut out, settings);
        }
        MetaCommand::SetMemberAddress { generation, member } => {
            out.push(SET_MEMBER_ADDRESS);
            put_u64(&mut out, *generation);
            put_member(&mut out, member);
        }
        MetaCommand::Begun { shards } => {
            out.push(BEGUN);
            put_numbers(&mut out, shards);
        }
    }
    // What is read back is what was written, within every bound; the path is rare, and one set of bounds cannot differ from another.
    if decode(&out)? == *command {
        Ok(out.into())
    } else {
        Err(MetaError::Malformed("a number does not fit its field"))
    }
}

/// Decodes a command.
pub(crate) fn decode(bytes: &[u8]) -> Result<MetaCommand, MetaError> {
    let (mut from, _) = begin(bytes, FORMAT)?;
    let command = match from.u8()? {
        FOUND => MetaCommand::Found { members: members(&mut from)?, shards: shards(&mut from)? },
        SET_SETTINGS => MetaCommand::SetSettings { generation: from.u64()?, settings: settings(&mut from)? },
        SET_MEMBER_ADDRESS => MetaCommand::SetMemberAddress { generation: from.u64()?, member: member(&mut from)? },
        BEGUN => MetaCommand::Begun { shards: numbers(&mut from)? },
        found => return Err(MetaError::Unsupported { what: "command", found, known: BEGUN }),
    };
    from.end()?;
    Ok(command)
}

/// Encodes the whole state, for a snapshot.
pub(crate) fn encode_placement(placement: &Placement) -> Vec<u8> {
    let mut out = vec![if placement.begun.is_empty() { FORMAT } else { FORMAT_BEGUN }];
    put_u64(&mut out, placement.generation);
    put_members(&mut out, &placement.members);
    put_shards(&mut out, &placement.shards);
    out.push(u8::from(placement.settings.is_some()));
    if let Some(settings) = &placement.settings {
        put_settings(&mut out, settings);
    }
    if !placement.begun.is_empty() {
        put_numbers(&mut out, &placement.begun);
    }
    out
}

/// Decodes the whole state.
pub(crate) fn decode_placement(bytes: &[u8]) -> Result<Placement, MetaError> {
    let (mut from, format) = begin(bytes, FORMAT_BEGUN)?;
    let (generation, members, shards) = (from.u64()?, members(&mut from)?, shards(&mut from)?);
    let settings = match from.u8()? {
        0 => None,
        1 => Some(settings(&mut from)?),
        _ => return Err(MetaError::Malformed("a flag that is neither 0 nor 1")),
    };
    let begun = if format == FORMAT_BEGUN { numbers(&mut from)? } else { BTreeSet::new() };
    from.end()?;
    Ok(Placement { generation, members, shards, settings, begun })
}

/// The format comes before the bound, which is that of the formats up to `known`.
fn begin(bytes: &[u8], known: u8) -> Result<(Reader<'_>, u8), MetaError> {
    let mut from = Reader(bytes);
    match from.u8()? {
        // There was a format 1 before the first release; nothing wrote a 0.
        found if found < FORMAT => Err(MetaError::Malformed("a format that is not read any more")),
        found if found > known => Err(MetaError::Unsupported { what: "format", found, known }),
        _ if bytes.len() > META_BYTES_MAX => Err(MetaError::Malformed("it has more bytes than its bound")),
        found => Ok((from, found)),
    }
}

fn put_u16(out: &mut Vec<u8>, n: usize) {
    // A longer one is cut here, and then does not read back as what it was.
    out.extend_from_slice(&(n as u16).to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u16(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_member(out: &mut Vec<u8>, m: &MemberEntry) {
    put_u64(out, m.node);
    for address in [&m.client, &m.peer, &m.http] {
        put_text(out, address);
    }
}

fn put_members(out: &mut Vec<u8>, members: &[MemberEntry]) {
    put_u16(out, members.len());
    members.iter().for_each(|member| put_member(out, member));
}

fn put_shards(out: &mut Vec<u8>, shards: &[ShardPlacement]) {
    put_u16(out, shards.len());
    for shard in shards {
        out.extend_from_slice(&shard.shard.to_le_bytes());
        put_u16(out, shard.slots.len());
        for &(from, to) in &shard.slots {
            put_u16(out, from.into());
            put_u16(out, to.into());
        }
        put_u16(out, shard.replicas.len());
        shard.replicas.iter().for_each(|&node| put_u64(out, node));
    }
}

fn put_numbers(out: &mut Vec<u8>, numbers: &BTreeSet<u32>) {
    put_u16(out, numbers.len());
    numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
}

fn put_settings(out: &mut Vec<u8>, s: &Settings) {
    for n in [s.retain_sold_ms, s.retain_ended_ms, s.retain_refused_ms, s.remembered_max] {
        put_u64(out, n);
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MetaError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(MetaError::Malformed("it ends early"))?;
        self.0 = rest;
        Ok(*taken)
    }
    fn u8(&mut self) -> Result<u8, MetaError> {
        Ok(u8::from_le_bytes(self.take()?))
    }
    fn u16(&mut self) -> Result<u16, MetaError> {
        Ok(u16::from_le_bytes(self.take()?))
    }
    fn u32(&mut self) -> Result<u32, MetaError> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    fn u64(&mut self) -> Result<u64, MetaError> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    fn count(&mut self, max: usize) -> Result<usize, MetaError> {
        match usize::from(self.u16()?) {
            n if n > max => Err(MetaError::Malformed("it has more of something than its bound")),
            n => Ok(n),
        }
    }
    fn text(&mut self, max: usize) -> Result<String, MetaError> {
        let len = self.count(max)?;
        let (text, rest) = self.0.split_at_checked(len).ok_or(MetaError::Malformed("it ends early"))?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| MetaError::Malformed("a text that is not UTF-8"))
    }
    fn end(&self) -> Result<(), MetaError> {
        if self.0.is_empty() { Ok(()) } else { Err(MetaError::Malformed("bytes follow its end")) }
    }
}

fn many<T>(
    from: &mut Reader<'_>,
    max: usize,
    one: impl Fn(&mut Reader<'_>) -> Result<T, MetaError>,
) -> Result<Vec<T>, MetaError> {
    let count = from.count(max)?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(one(from)?);
    }
    Ok(all)
}

fn member(from: &mut Reader<'_>) -> Result<MemberEntry, MetaError> {
    let node = from.u64()?;
    let mut address = || from.text(ADDRESS_BYTES_MAX);
    Ok(MemberEntry { node, client: address()?, peer: address()?, http: address()? })
}

fn members(from: &mut Reader<'_>) -> Result<Vec<MemberEntry>, MetaError> {
    many(from, MEMBERS_MAX, member)
}

fn shards(from: &mut Reader<'_>) -> Result<Vec<ShardPlacement>, MetaError> {
    let range = |from: &mut Reader<'_>| match (from.u16()?, from.u16()?) {
        (first, last) if first <= last && last < SLOTS => Ok((first, last)),
        _ => Err(MetaError::Malformed("a range of slots that do not exist")),
    };
    many(from, SHARDS_MAX as usize, |from| {
        Ok(ShardPlacement {
            shard: from.u32()?,
            slots: many(from, usize::from(SLOTS), range)?,
            replicas: many(from, REPLICAS_MAX as usize, |from| from.u64())?,
        })
    })
}

/// Numbers of shards, each above the one before it: there is one way to write a set.
fn numbers(from: &mut Reader<'_>) -> Result<BTreeSet<u32>, MetaError> {
    let all = many(from, SHARDS_MAX as usize, |from| from.u32())?;
    match all.is_sorted_by(|a, b| a < b) {
        true => Ok(all.into_iter().collect()),
        false => Err(MetaError::Malformed("numbers that do not rise")),
    }
}

fn settings(from: &mut Reader<'_>) -> Result<Settings, MetaError> {
    Ok(Settings {
        retain_sold_ms: from.u64()?,
        retain_ended_ms: from.u64()?,
        retain_refused_ms: from.u64()?,
        remembered_max: from.u64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u64) -> MemberEntry {
        MemberEntry { node, client: "a:1".into(), peer: "b:2".into(), http: "c:3".into() }
    }

    fn settings() -> Settings {
        Settings { retain_sold_ms: 1, retain_ended_ms: 2, retain_refused_ms: 3, remembered_max: 4 }
    }

    fn all() -> [MetaCommand; 4] {
        let shard = ShardPlacement { shard: 1, slots: vec![(0, 4095)], replicas: vec![7, 8] };
        [
            MetaCommand::Found { members: vec![member(7)], shards: vec![shard] },
            MetaCommand::SetSettings { generation: 5, settings: settings() },
            MetaCommand::SetMemberAddress { generation: 6, member: member(7) },
            MetaCommand::Begun { shards: [1, 258].into() },
        ]
    }

    #[test]
    fn the_bytes_of_commands_are_frozen() {
        let member = "0700000000000000 0300 613a31 0300 623a32 0300 633a33";
        let golden = [
            format!("02 01 0100 {member} 0100 01000000 0100 0000 ff0f 0200 0700000000000000 0800000000000000"),
            "02 02 0500000000000000 0100000000000000 0200000000000000 0300000000000000 0400000000000000".to_owned(),
            format!("02 03 0600000000000000 {member}"),
            "02 04 0200 01000000 02010000".to_owned(),
        ];
        for (command, golden) in all().iter().zip(golden) {
            let bytes = encode(command).expect("within its bounds");
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, golden.replace(' ', ""));
            assert_eq!(decode(&bytes).as_ref(), Ok(command));
        }
    }

    #[test]
    fn the_bytes_of_a_snapshot_are_frozen() {
        let mut placement = Placement {
            generation: 9,
            members: vec![member(7)],
            shards: Vec::new(),
            settings: Some(settings()),
            begun: BTreeSet::new(),
        };
        let hex: String = encode_placement(&placement).iter().map(|b| format!("{b:02x}")).collect();
        let golden = "02 0900000000000000 0100 0700000000000000 0300 613a31 0300 623a32 0300 633a33 0000 01 \
                      0100000000000000 0200000000000000 0300000000000000 0400000000000000";
        assert_eq!(hex, golden.replace(' ', ""));
        assert_eq!(decode_placement(&encode_placement(&placement)).as_ref(), Ok(&placement));
        placement.begun = [1, 258].into();
        let bytes = encode_placement(&placement);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let golden = format!("03{}020001000000 02010000", &golden[2..]);
        assert_eq!(hex, golden.replace(' ', ""), "it goes on behind what format 2 has");
        assert_eq!(decode_placement(&bytes), Ok(placement));
        let falling = [&bytes[..bytes.len() - 8], &[2, 0, 0, 0, 1, 0, 0, 0]].concat();
        assert!(matches!(decode_placement(&falling), Err(MetaError::Malformed(_))));
    }

    #[test]
    fn what_is_newer_is_told_from_what_is_malformed() {
        let unsupported = |bytes: &[u8]| matches!(decode(bytes), Err(MetaError::Unsupported { .. }));
        assert!(unsupported(&[3]) && unsupported(&[200, 1, 2]) && unsupported(&[FORMAT, 5]));
        for malformed in [&[][..], &[1, b'{'], &[FORMAT], &[FORMAT, SET_SETTINGS, 1]] {
            assert!(matches!(decode(malformed), Err(MetaError::Malformed(_))), "{malformed:?}");
        }
    }

    #[test]
    fn a_newer_format_is_not_measured_by_the_bounds_of_this_one() {
        let large = |format| vec![format; META_BYTES_MAX + 1];
        assert!(matches!(decode(&large(FORMAT + 1)), Err(MetaError::Unsupported { .. })));
        assert!(matches!(decode_placement(&large(FORMAT_BEGUN + 1)), Err(MetaError::Unsupported { .. })));
        assert!(matches!(decode_placement(&large(FORMAT_BEGUN)), Err(MetaError::Malformed(_))));
        assert!(matches!(decode(&large(FORMAT)), Err(MetaError::Malformed(_))));
    }

    #[test]
    fn every_cut_and_every_addition_is_an_error() {
        for command in all() {
            let bytes = encode(&command).expect("within its bounds").to_vec();
            for cut in 0..bytes.len() {
                assert!(matches!(decode(&bytes[..cut]), Err(MetaError::Malformed(_))), "{command:?} cut at {cut}");
            }
            assert!(decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn nothing_is_written_that_could_not_be_read() {
        let long = MemberEntry { client: "x".repeat(ADDRESS_BYTES_MAX + 1), ..member(1) };
        assert!(encode(&MetaCommand::SetMemberAddress { generation: 1, member: long }).is_err());
        let most = MemberEntry { client: "x".repeat(ADDRESS_BYTES_MAX), ..member(1) };
        assert!(encode(&MetaCommand::SetMemberAddress { generation: 1, member: most }).is_ok());
        let wrapped = MemberEntry { client: "x".repeat(0x1_0000), ..member(1) };
        assert!(encode(&MetaCommand::SetMemberAddress { generation: 1, member: wrapped }).is_err());
        let members = (0..=MEMBERS_MAX as u64).map(member).collect();
        assert!(encode(&MetaCommand::Found { members, shards: Vec::new() }).is_err());
        let shard = |slots| ShardPlacement { shard: 1, slots, replicas: Vec::new() };
        let found = |slots| encode(&MetaCommand::Found { members: Vec::new(), shards: vec![shard(slots)] });
        assert!(found(vec![(0, SLOTS)]).is_err() && found(vec![(5, 4)]).is_err() && found(vec![(0, 0)]).is_ok());
    }
}
