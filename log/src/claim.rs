//! Payloads by reference: what is too large for a server goes into a blob, and the payload becomes a claim to it.
//!
//! A safety net under everything that enters history. Large content has left long before (`blobs`), but what is small
//! adds up: a hundred tool calls in one answer, a state with all of them open. No server takes a payload of 2 MiB, and
//! a session that has one would be stuck for good.
//!
//! Workers apply it in their SDK, the api where it sends, and [`crate::client`] where histories are read; nobody else
//! ever sees a claim.

use crate::blobs::{self, Error};
use domain::{content::BlobRef, limits::PAYLOAD_BYTES_MAX};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use parking_lot::Mutex;
use prost::Message as _;
use std::sync::Arc;
use store::Blobs;
use temporalio_common::{
    data_converters::{
        DataConverter, DefaultFailureConverter, PayloadCodec, PayloadConversionError, PayloadConverter,
        SerializationContextData, WorkflowSerializationContext,
    },
    payload_visitor::decode_payloads,
    protos::temporal::api::{common::v1::Payload, history::v1::HistoryEvent},
};

const ENCODING: &str = "encoding";
/// The encoding of a claim: its data is a `BlobRef` as JSON, the blob is the payload that it stands for.
const CLAIM: &[u8] = b"json/steadyhand-claim";

/// Cheap to clone.
#[derive(Clone)]
pub struct ClaimCheck {
    blobs: Arc<dyn Blobs>,
    /// Claims that were redeemed, where somebody wants to know.
    redeemed: Option<Arc<Mutex<Vec<BlobRef>>>>,
}

impl ClaimCheck {
    pub fn new(blobs: Arc<dyn Blobs>) -> Self {
        ClaimCheck { blobs, redeemed: None }
    }

    /// What clients of the SDK convert with.
    pub fn converter(blobs: Arc<dyn Blobs>) -> DataConverter {
        DataConverter::new(PayloadConverter::default(), DefaultFailureConverter::default(), Self::new(blobs))
    }

    /// The payload, or a claim to it.
    pub async fn check(&self, payload: Payload) -> Result<Payload, Error> {
        if payload.encoded_len() < PAYLOAD_BYTES_MAX {
            return Ok(payload);
        }
        let blob = blobs::put(&*self.blobs, payload.encode_to_vec().into()).await?;
        let data = serde_json::to_vec(&blob).expect("a reference has string keys only");
        Ok(Payload { metadata: [(ENCODING.to_owned(), CLAIM.to_vec())].into(), data, ..Payload::default() })
    }

    /// What a claim stands for; any other payload is itself.
    pub async fn redeem(&self, payload: Payload) -> Result<Payload, Error> {
        if payload.metadata.get(ENCODING).is_none_or(|encoding| encoding != CLAIM) {
            return Ok(payload);
        }
        let blob: BlobRef = serde_json::from_slice(&payload.data)
            .map_err(|source| Error::Decode { hash: "(of a claim)".to_owned(), source })?;
        let bytes = blobs::get(&*self.blobs, &blob).await?;
        let payload = Payload::decode(bytes).map_err(|source| Error::Claim { hash: blob.blob.clone(), source })?;
        if let Some(redeemed) = &self.redeemed {
            redeemed.lock().push(blob);
        }
        Ok(payload)
    }

    /// Redeems every claim in a piece of history. Gives the blobs that they were for.
    pub async fn redeem_history(&self, events: &mut [HistoryEvent]) -> Result<Vec<BlobRef>, PayloadConversionError> {
        let redeemed = Arc::<Mutex<Vec<BlobRef>>>::default();
        let codec = ClaimCheck { redeemed: Some(redeemed.clone()), ..self.clone() };
        let context = SerializationContextData::Workflow(WorkflowSerializationContext::new());
        for event in events {
            decode_payloads(event, &codec, &context).await?;
        }
        Ok(std::mem::take(&mut *redeemed.lock()))
    }
}

impl PayloadCodec for ClaimCheck {
    fn encode(
        &self,
        _context: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        let codec = self.clone();
        each(payloads, move |payload| {
            let codec = codec.clone();
            async move { codec.check(payload).await }
        })
    }

    fn decode(
        &self,
        _context: &SerializationContextData,
        payloads: Vec<Payload>,
    ) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>> {
        let codec = self.clone();
        each(payloads, move |payload| {
            let codec = codec.clone();
            async move { codec.redeem(payload).await }
        })
    }
}

fn each<F>(
    payloads: Vec<Payload>,
    change: impl FnMut(Payload) -> F + Send + 'static,
) -> BoxFuture<'static, Result<Vec<Payload>, PayloadConversionError>>
where
    F: Future<Output = Result<Payload, Error>> + Send + 'static,
{
    let wrapped = |error| PayloadConversionError::EncodingError(Box::new(error));
    stream::iter(payloads).then(change).map_err(wrapped).try_collect().boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::MemoryBlobs;
    use temporalio_common::protos::temporal::api::{
        common::v1::Payloads,
        history::v1::{WorkflowExecutionSignaledEventAttributes, history_event::Attributes},
    };

    fn payload(bytes: usize) -> Payload {
        let metadata = [(ENCODING.to_owned(), b"json/plain".to_vec())].into();
        Payload { metadata, data: vec![b'7'; bytes], ..Payload::default() }
    }

    async fn stored(blobs: &MemoryBlobs) -> usize {
        blobs.list(None, 10).await.unwrap().len()
    }

    #[tokio::test]
    async fn what_is_large_becomes_a_claim_and_comes_back() {
        let blobs = MemoryBlobs::new();
        let codec = ClaimCheck::new(Arc::new(blobs.clone()));
        let small = payload(PAYLOAD_BYTES_MAX / 2);
        assert_eq!(codec.check(small.clone()).await.unwrap(), small);
        assert_eq!(codec.redeem(small.clone()).await.unwrap(), small);
        assert_eq!(stored(&blobs).await, 0);

        let large = payload(PAYLOAD_BYTES_MAX);
        let claim = codec.check(large.clone()).await.unwrap();
        assert!(claim.encoded_len() < 300);
        assert_eq!(stored(&blobs).await, 1);
        assert_eq!(codec.check(large.clone()).await.unwrap(), claim, "the same payload is the same claim");
        assert_eq!(codec.redeem(claim).await.unwrap(), large);
    }

    #[tokio::test]
    async fn history_comes_back_whole_and_says_what_it_needed() {
        let codec = ClaimCheck::new(Arc::new(MemoryBlobs::new()));
        let large = payload(PAYLOAD_BYTES_MAX);
        let claim = codec.check(large.clone()).await.unwrap();
        let signaled = |payload: Payload| {
            let input = Some(Payloads { payloads: vec![payload] });
            let attributes = WorkflowExecutionSignaledEventAttributes { input, ..Default::default() };
            let attributes = Some(Attributes::WorkflowExecutionSignaledEventAttributes(attributes));
            HistoryEvent { attributes, ..HistoryEvent::default() }
        };
        let mut events = [signaled(payload(10)), signaled(claim.clone())];
        let needed = codec.redeem_history(&mut events).await.unwrap();
        assert_eq!(events, [signaled(payload(10)), signaled(large)]);
        assert_eq!(needed, [serde_json::from_slice::<BlobRef>(&claim.data).unwrap()]);
    }

    #[tokio::test]
    async fn a_claim_to_nothing_is_an_error_and_no_empty_payload() {
        let codec = ClaimCheck::new(Arc::new(MemoryBlobs::new()));
        let claim = codec.check(payload(PAYLOAD_BYTES_MAX)).await.unwrap();
        let elsewhere = ClaimCheck::new(Arc::new(MemoryBlobs::new()));
        assert!(matches!(elsewhere.redeem(claim).await, Err(Error::Store { .. })));
    }
}
