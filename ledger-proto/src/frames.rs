//! Whole frames as the service carries them, and the codec that leaves their bytes alone.
//!
//! **Owns** [`Calls`], [`OneCall`] and [`Answers`]. **Must never** parse more than it is asked to: the codec's task only moves bytes, whoever
//! takes the frame decodes it where it is needed. **Read next**: [`crate::fast`].

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use ledger_core::Command;
use ledger_core::outcome::Outcome;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::fast::{self, FrameError, ReceivedAnswer};
use crate::reply::{At, Reply};
use crate::{DecodedCall, limits};

/// The bytes of a [`v1::CallFrame`](crate::v1::CallFrame).
#[derive(Debug, Clone, Default)]
pub struct Calls(Bytes);

impl Calls {
    /// Takes bytes that [`fast::put_call`] wrote.
    pub fn from_encoded(frame: Bytes) -> Self {
        Self(frame)
    }
    /// Encodes commands, each with its tag; none for a command that only nodes propose.
    pub fn of<'a>(within_ms: u32, calls: impl IntoIterator<Item = (u64, &'a Command)>) -> Option<Self> {
        let mut frame = BytesMut::new();
        let all = calls.into_iter().all(|(tag, command)| fast::put_call(&mut frame, tag, within_ms, command));
        all.then(|| Self(frame.freeze()))
    }
    /// Reads the calls and appends them to `to`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no frame; answer it as the stream's status ([`crate::status::malformed`]).
    pub fn decode_into(&self, to: &mut Vec<DecodedCall>) -> Result<(), FrameError> {
        fast::decode_call_frame(&self.0, to)
    }
    /// Reads the calls.
    ///
    /// # Errors
    /// As [`Self::decode_into`].
    pub fn decode(&self) -> Result<Vec<DecodedCall>, FrameError> {
        let mut calls = Vec::new();
        self.decode_into(&mut calls)?;
        Ok(calls)
    }
    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is no call in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The bytes of one [`v1::Call`](crate::v1::Call).
#[derive(Debug, Clone, Default)]
pub struct OneCall(Bytes);

impl OneCall {
    /// Encodes a command; none for one that only nodes propose.
    pub fn of(tag: u64, within_ms: u32, command: &Command) -> Option<Self> {
        let call = crate::v1::Call { tag, within_ms, verb: Some(crate::calls::verb(command)?) };
        Some(Self(prost::Message::encode_to_vec(&call).into()))
    }
    /// Reads the call.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no call.
    pub fn decode(&self) -> Result<DecodedCall, FrameError> {
        fast::decode_call(&self.0)
    }
}

/// The bytes of a [`v1::AnswerFrame`](crate::v1::AnswerFrame): written entry by entry as the answers come, and read back as a whole.
#[derive(Debug, Clone, Default)]
pub struct Answers(BytesMut);

impl Answers {
    /// An empty frame.
    pub fn new() -> Self {
        Self::default()
    }
    /// An empty frame with room for about so many answers.
    pub fn with_room_for(answers: usize) -> Self {
        Self(BytesMut::with_capacity(48 + 40 * answers))
    }
    /// Begins the answers of one log entry (`at` with any place; each answer has its own), or with none of calls that never reached the
    /// log. It is closed when dropped.
    pub fn entry(&mut self, at: Option<At>) -> EntryOf<'_> {
        let start = fast::answers::begin_entry(&mut self.0, at);
        EntryOf { frame: &mut self.0, start }
    }
    /// Adds one answer that never reached the log.
    pub fn push(&mut self, tag: u64, reply: &Reply) {
        self.entry(None).reply(tag, 0, reply);
    }
    /// Reads the answers and appends them to `to`, which is left as it was on an error.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    pub fn decode_into(&self, to: &mut Vec<ReceivedAnswer>) -> Result<(), FrameError> {
        fast::decode_answer_frame(&self.0, to)
    }
    /// Reads the answers.
    ///
    /// # Errors
    /// As [`Self::decode_into`].
    pub fn decode(&self) -> Result<Vec<ReceivedAnswer>, FrameError> {
        let mut answers = Vec::new();
        self.decode_into(&mut answers)?;
        Ok(answers)
    }
    /// Bytes so far. Send the frame before it outgrows [`limits::ANSWER_BYTES_MAX`].
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is no entry in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The frame's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The answers of one log entry under construction.
#[derive(Debug)]
pub struct EntryOf<'a> {
    frame: &'a mut BytesMut,
    start: usize,
}

impl EntryOf<'_> {
    /// Adds the ledger's answer to the call with this tag.
    #[inline]
    pub fn outcome(&mut self, tag: u64, place: u16, outcome: &Outcome) {
        fast::answers::put_outcome(self.frame, tag, place, outcome);
    }
    /// Adds any reply.
    pub fn reply(&mut self, tag: u64, place: u16, reply: &Reply) {
        fast::answers::put_reply(self.frame, tag, place, reply);
    }
}

impl Drop for EntryOf<'_> {
    fn drop(&mut self) {
        fast::answers::end_entry(self.frame, self.start);
    }
}

/// A message that is nothing but its bytes.
pub trait Frame: Send + 'static {
    /// From the bytes of one gRPC message.
    fn from_message(message: Bytes) -> Self;
    /// The bytes of one gRPC message.
    fn message(&self) -> &[u8];
}

impl Frame for Calls {
    fn from_message(message: Bytes) -> Self {
        Self(message)
    }
    fn message(&self) -> &[u8] {
        &self.0
    }
}
impl Frame for OneCall {
    fn from_message(message: Bytes) -> Self {
        Self(message)
    }
    fn message(&self) -> &[u8] {
        &self.0
    }
}
impl Frame for Answers {
    fn from_message(message: Bytes) -> Self {
        Self(message.into())
    }
    fn message(&self) -> &[u8] {
        &self.0
    }
}

/// The codec of frames: `E` is what this side sends, `D` what it receives.
#[derive(Debug, Clone)]
pub struct FrameCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for FrameCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E: Frame, D: Frame> Codec for FrameCodec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = FrameEncoder<E>;
    type Decoder = FrameDecoder<D>;
    fn encoder(&mut self) -> FrameEncoder<E> {
        FrameEncoder(PhantomData)
    }
    fn decoder(&mut self) -> FrameDecoder<D> {
        FrameDecoder(PhantomData)
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameEncoder<E>(PhantomData<E>);
/// Reads frames.
#[derive(Debug)]
pub struct FrameDecoder<D>(PhantomData<D>);

/// Small at first (a lone caller's frame is 60 bytes), and up to two HTTP/2 frames of 32 KiB are joined into one write.
fn buffers() -> BufferSettings {
    BufferSettings::new(8 << 10, 64 << 10)
}

impl<E: Frame> Encoder for FrameEncoder<E> {
    type Item = E;
    type Error = Status;
    fn encode(&mut self, item: E, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let message = item.message();
        to.reserve(message.len());
        to.put_slice(message);
        Ok(())
    }
    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

impl<D: Frame> Decoder for FrameDecoder<D> {
    type Item = D;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let length = from.remaining();
        Ok(Some(D::from_message(from.copy_to_bytes(length))))
    }
    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

const _: () = assert!(limits::ANSWER_BYTES_MAX < 1 << 28, "an entry's length has four bytes");
