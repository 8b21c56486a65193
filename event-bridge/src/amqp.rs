//! AMQP 0.9.1: a topic exchange, publisher confirms, persistent messages.
//!
//! **Owns** what a message carries besides its body. **Must never** reconnect by itself: what was in flight would be forgotten.
//! **Read next**: [`crate::broker`].

use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};

use crate::broker::{Broker, BrokerError, Link, Verdict};
use crate::event::CONTENT_TYPE;
use crate::limits::LINK_LOOK;
use crate::window::{Outgoing, Ticket};

/// Survives a restart of the broker, in a durable queue.
const PERSISTENT: u8 = 2;

/// Where messages go.
#[derive(Debug, Clone)]
pub struct Amqp {
    /// `amqp://user:password@host:port/vhost`.
    pub uri: AMQPUri,
    /// The topic exchange.
    pub exchange: String,
    /// Declare it (durable); else it must be there.
    pub declare: bool,
}

/// A URI that may be connected to, with a heartbeat.
///
/// # Errors
/// What is wrong with it.
pub fn uri(text: &str, heartbeat: Duration) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = text.parse().map_err(|why| format!("amqp://user:password@host:port/vhost ({why})"))?;
    if uri.scheme == AMQPScheme::AMQPS {
        return Err("amqp://: this build has no TLS of its own; put the broker behind a TLS proxy on this host".into());
    }
    uri.query.heartbeat.get_or_insert(u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX));
    Ok(uri)
}

impl From<lapin::Error> for BrokerError {
    fn from(why: lapin::Error) -> Self {
        Self(why.to_string())
    }
}

#[async_trait]
impl Broker for Amqp {
    async fn connect(&self) -> Result<Box<dyn Link>, BrokerError> {
        let properties = ConnectionProperties::default().with_connection_name("holdfast event-bridge".into());
        let connection = Connection::connect_uri(self.uri.clone(), properties).await?;
        let channel = connection.create_channel().await?;
        let options =
            ExchangeDeclareOptions { durable: true, passive: !self.declare, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(self.exchange.as_str().into(), ExchangeKind::Topic, options, FieldTable::default())
            .await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Box::new(AmqpLink {
            connection,
            channel,
            exchange: self.exchange.clone(),
            in_flight: FuturesUnordered::new(),
        }))
    }
}

struct AmqpLink {
    connection: Connection,
    channel: Channel,
    exchange: String,
    in_flight: FuturesUnordered<BoxFuture<'static, (Ticket, lapin::Result<Confirmation>)>>,
}

#[async_trait]
impl Link for AmqpLink {
    async fn publish(&mut self, batch: Vec<Outgoing>) -> Result<(), BrokerError> {
        for Outgoing { ticket, event, .. } in batch {
            let properties = BasicProperties::default()
                .with_content_type(CONTENT_TYPE.into())
                .with_delivery_mode(PERSISTENT)
                .with_message_id(event.id.as_str().into())
                .with_type(event.kind.as_str().into())
                .with_timestamp(event.time.0 / 1_000);
            let (exchange, key) = (self.exchange.as_str().into(), event.routing_key.as_str().into());
            let options = BasicPublishOptions::default();
            let confirm = self.channel.basic_publish(exchange, key, options, &event.body, properties).await?;
            self.in_flight.push(Box::pin(async move { (ticket, confirm.await) }));
        }
        Ok(())
    }

    async fn verdict(&mut self) -> Result<(Ticket, Verdict), BrokerError> {
        loop {
            tokio::select! {
                biased;
                Some((ticket, confirmation)) = self.in_flight.next() => {
                    return match confirmation? {
                        Confirmation::Ack(_) => Ok((ticket, Verdict::Confirmed)),
                        Confirmation::Nack(_) => Ok((ticket, Verdict::Refused)),
                        Confirmation::NotRequested => Err(BrokerError("the channel gives no confirms".to_owned())),
                    };
                }
                () = tokio::time::sleep(LINK_LOOK) => {
                    if !self.channel.status().connected() {
                        return Err(BrokerError("the connection is gone".to_owned()));
                    }
                }
            }
        }
    }

    async fn close(self: Box<Self>) {
        if let Err(why) = self.connection.close(200, "the bridge ends".into()).await {
            tracing::debug!(%why, "the connection did not close in good order");
        }
    }
}
