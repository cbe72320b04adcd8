//! Frames to and from one peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use control_proto::TunnelRefusal;
use frame_proto::{
    Ends, FrameKeys, FrameOpener, FrameSealer, FrameStreams, FrameType, HEADER_LENGTH,
    HOP_TAG_LENGTH, HelloKey, OpenError, TAG_LENGTH, parse, set_peer,
};
use identity::{DeviceId, TunnelKey, TunnelPublicKey};
use rand_core::CryptoRng;
use wireguard_proto::Session;

/// The frame keys of all sessions with a peer that are alive, and the key for the time before.
#[derive(Debug)]
pub(crate) struct Frames {
    ends: Ends,
    has_aes: bool,
    /// Nothing if the peer's tunnel key is none.
    hello: Option<HelloKey>,
    sessions: BTreeMap<u32, SessionFrames>,
}

#[derive(Debug)]
struct SessionFrames {
    session: Arc<Session>,
    streams: FrameStreams,
    /// The stream in use and the relay that it goes through.
    sealer: Option<(DeviceId, FrameSealer)>,
    opener: FrameOpener,
}

impl Frames {
    pub(crate) fn new(
        ends: Ends,
        (ours, theirs): (&TunnelKey, &TunnelPublicKey),
        has_aes: bool,
    ) -> Self {
        let hello = HelloKey::new(ends, ours, theirs);
        Self { ends, has_aes, hello, sessions: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, session: &Arc<Session>) {
        let secrets = session.frame_secrets();
        let keys = FrameKeys {
            send: secrets.send,
            receive: secrets.receive,
            remote_index: session.remote_index(),
            local_index: session.local_index(),
            has_aes: self.has_aes,
        };
        let (streams, opener) = keys.split(self.ends);
        let frames = SessionFrames { session: Arc::clone(session), streams, sealer: None, opener };
        self.sessions.insert(session.local_index(), frames);
    }

    pub(crate) fn remove(&mut self, local_index: u32) {
        self.sessions.remove(&local_index);
    }

    /// The sessions that are alive.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.sessions.values().map(|frames| &frames.session)
    }

    /// Seals a data frame, whose payload is in its place, for the way through `relay`.
    pub(crate) fn seal_data(
        &mut self,
        session: &Session,
        relay: DeviceId,
        mut frame: BytesMut,
        flags: u8,
    ) -> Option<BytesMut> {
        let frames = self.sessions.get_mut(&session.local_index())?;
        if frames.sealer.as_ref().is_none_or(|(through, _)| *through != relay) {
            frames.sealer = Some((relay, frames.streams.begin()));
        }
        let (_, sealer) = frames.sealer.as_ref()?;
        sealer.seal(FrameType::Data, flags, &mut frame).ok()?;
        Some(frame)
    }

    /// Opens a data frame in place; answers the session that it belongs to.
    ///
    /// # Errors
    /// Why not, if that is worth counting.
    pub(crate) fn open_packet(
        &self,
        frame: &mut [u8],
    ) -> Result<Arc<Session>, Option<TunnelRefusal>> {
        let index = parse(frame).map_err(|_| None)?.receiver_index();
        let frames = self.sessions.get(&index).ok_or(None)?;
        frames.opener.open(frame).map_err(|error| match error {
            OpenError::Replayed => Some(TunnelRefusal::ReplayedPacket),
            OpenError::BadTag => Some(TunnelRefusal::ForgedPacket),
            OpenError::Frame(_) | OpenError::WrongSession => None,
        })?;
        Ok(Arc::clone(&frames.session))
    }

    /// Seals what goes before, or beside, any session.
    pub(crate) fn seal_hello(
        &self,
        kind: FrameType,
        payload: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Option<BytesMut> {
        let length = HEADER_LENGTH + payload.len() + TAG_LENGTH;
        let mut frame = BytesMut::with_capacity(length + HOP_TAG_LENGTH);
        frame.resize(HEADER_LENGTH, 0);
        frame.extend_from_slice(payload);
        frame.resize(length, 0);
        self.hello.as_ref()?.seal(kind, &mut frame, rng).ok()?;
        Some(frame)
    }

    /// The same for the direct way, on which frames name their sender.
    pub(crate) fn seal_hello_direct(
        &self,
        kind: FrameType,
        payload: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Option<Vec<u8>> {
        let mut frame = self.seal_hello(kind, payload, rng)?;
        set_peer(&mut frame, self.ends.local).ok()?;
        Some(frame.into())
    }

    /// Opens an introduction that names another tunnel key than the known one.
    pub(crate) fn open_introduction(
        &self,
        frame: &mut [u8],
        ours: &TunnelKey,
        theirs: &TunnelPublicKey,
    ) -> Option<FrameType> {
        Some(HelloKey::new(self.ends, ours, theirs)?.open(frame).ok()?.kind)
    }

    /// Opens a frame sealed with the hello key; its payload is plain afterwards.
    pub(crate) fn open_hello(&self, frame: &mut [u8]) -> Option<FrameType> {
        Some(self.hello.as_ref()?.open(frame).ok()?.kind)
    }
}
