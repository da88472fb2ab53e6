//! A service written by hand, and its client: what tonic's code generator makes of this.
//!
//! ```proto
//! package numbers;
//! service Numbers {
//!   rpc Next(Number) returns (Number);
//!   rpc Count(Number) returns (stream Number);
//!   rpc Sum(stream Number) returns (Number);
//!   rpc Echo(stream Number) returns (stream Number);
//! }
//! ```

use std::{convert::Infallible, fmt::Display};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http::uri::PathAndQuery;
use tonic::{
    IntoRequest, IntoStreamingRequest, Request, Response, Status, Streaming, body::Body,
    transport::Channel,
};
use tonic_prost::ProstCodec;
use tower::service_fn;

const NEXT: &str = "/numbers.Numbers/Next";
const COUNT: &str = "/numbers.Numbers/Count";
const SUM: &str = "/numbers.Numbers/Sum";
const ECHO: &str = "/numbers.Numbers/Echo";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) value: u64,
    /// The same once more, in words of one digit.
    #[prost(string, tag = "2")]
    pub(crate) digits: String,
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        const WORDS: [&str; 10] = [
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
        ];
        let digits = value.to_string();
        let digits: Vec<_> = digits
            .bytes()
            .map(|d| WORDS[usize::from(d - b'0')])
            .collect();
        Self {
            value,
            digits: digits.join(" "),
        }
    }
}

/// The server's side, for `service_fn`.
pub(crate) async fn serve(
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Infallible> {
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<Number, Number>::default());
    Ok(match request.uri().path() {
        NEXT => grpc.unary(service_fn(next), request).await,
        COUNT => grpc.server_streaming(service_fn(count), request).await,
        SUM => grpc.client_streaming(service_fn(sum), request).await,
        ECHO => grpc.streaming(service_fn(echo), request).await,
        _ => Status::unimplemented("numbers can do no such thing").into_http(),
    })
}

type Answer<T> = Result<Response<T>, Status>;

async fn next(request: Request<Number>) -> Answer<Number> {
    let next = request.get_ref().value.checked_add(1);
    let next = next.ok_or_else(|| Status::out_of_range("it is the last one"))?;
    Ok(Response::new(next.into()))
}

async fn count(request: Request<Number>) -> Answer<impl Stream<Item = Result<Number, Status>>> {
    let numbers = 0..request.get_ref().value;
    Ok(Response::new(stream::iter(numbers).map(|n| Ok(n.into()))))
}

async fn sum(request: Request<Streaming<Number>>) -> Answer<Number> {
    let numbers = request.into_inner();
    let sum = numbers.try_fold(0, |sum, n| async move { Ok(sum + n.value) });
    Ok(Response::new(sum.await?.into()))
}

async fn echo(request: Request<Streaming<Number>>) -> Answer<Streaming<Number>> {
    Ok(Response::new(request.into_inner()))
}

/// The client's side.
#[derive(Clone)]
pub(crate) struct Numbers(tonic::client::Grpc<Channel>);

impl Numbers {
    pub(crate) fn new(channel: Channel) -> Self {
        Self(tonic::client::Grpc::new(channel))
    }

    pub(crate) async fn next(&mut self, number: impl IntoRequest<Number>) -> Answer<Number> {
        self.0.ready().await.map_err(not_ready)?;
        let (request, path) = (number.into_request(), PathAndQuery::from_static(NEXT));
        self.0.unary(request, path, ProstCodec::default()).await
    }

    pub(crate) async fn count(
        &mut self,
        end: impl IntoRequest<Number>,
    ) -> Answer<Streaming<Number>> {
        self.0.ready().await.map_err(not_ready)?;
        let (request, path) = (end.into_request(), PathAndQuery::from_static(COUNT));
        let codec = ProstCodec::default();
        self.0.server_streaming(request, path, codec).await
    }

    pub(crate) async fn sum(
        &mut self,
        numbers: impl IntoStreamingRequest<Message = Number>,
    ) -> Answer<Number> {
        self.0.ready().await.map_err(not_ready)?;
        let request = numbers.into_streaming_request();
        let (path, codec) = (PathAndQuery::from_static(SUM), ProstCodec::default());
        self.0.client_streaming(request, path, codec).await
    }

    pub(crate) async fn echo(
        &mut self,
        numbers: impl IntoStreamingRequest<Message = Number>,
    ) -> Answer<Streaming<Number>> {
        self.0.ready().await.map_err(not_ready)?;
        let request = numbers.into_streaming_request();
        let (path, codec) = (PathAndQuery::from_static(ECHO), ProstCodec::default());
        self.0.streaming(request, path, codec).await
    }
}

fn not_ready(error: impl Display) -> Status {
    Status::unknown(format!("the channel is not ready: {error}"))
}
