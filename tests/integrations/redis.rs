//! redis, and a Redis that knows nothing of sessions.

use std::time::Duration;

use futures_util::StreamExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Msg, RedisConnectionInfo, RedisResult,
    aio::{MultiplexedConnection, PubSub},
    cmd, pipe,
};
use tokio::{task::JoinHandle, time::sleep};
use unbroken::LinkState;

use crate::{
    bed::{Bed, Spoken, over_each, under_cuts},
    cutting_proxy::Traffic,
    servers::{Gateway, LOOK, Server, folder, installed},
};

over_each!(
    pipelines_are_answered_whole_and_in_order,
    pops_and_messages_come_complete_and_in_order,
    a_session_that_dies_is_an_error_of_the_next_command,
);

fn server() -> Option<Server> {
    let program = installed("redis-server")?;
    let args = ["--port", "0", "--unixsocket", "socket", "--save", ""];
    Some(Server::start(&program, &args, folder(), "socket"))
}

/// A client on a session, which waits for answers as long as `config` says, and what drives it.
async fn open(bed: &Bed, config: AsyncConnectionConfig) -> (MultiplexedConnection, JoinHandle<()>) {
    let transport = bed.connect().await;
    let info = RedisConnectionInfo::default();
    let opened = MultiplexedConnection::new_with_config(&info, transport, config).await;
    let (connection, driver) = opened.expect("Redis answers");
    (connection, tokio::spawn(driver))
}

fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_response_timeout(None)
}

async fn pipelines_are_answered_whole_and_in_order(spoken: Spoken) {
    const EACH: usize = 50;
    let Some(server) = server() else { return };
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let mut gateway = Gateway::start(listener, move || server.connect());
    let (mut connection, driver) = open(&bed, patient()).await;

    for first in (0..3_000).step_by(EACH) {
        let mut pipeline = pipe();
        for number in first..first + EACH {
            pipeline.rpush("numbers", number);
        }
        let lengths: Vec<usize> = pipeline
            .query_async(&mut connection)
            .await
            .expect("lengths");
        assert_eq!(lengths, Vec::from_iter(first + 1..=first + EACH));
    }
    let numbers: Vec<usize> = connection.lrange("numbers", 0, -1).await.expect("a list");
    assert_eq!(numbers, Vec::from_iter(0..3_000));

    let mut value = vec![0; 2 << 20];
    StdRng::seed_from_u64(2).fill_bytes(&mut value);
    let set: RedisResult<()> = connection.set("value", &value).await;
    set.expect("Redis takes it");
    let got: Vec<u8> = connection.get("value").await.expect("a value");
    assert!(got == value, "another value came back");

    bed.assert_cut(5);
    drop(connection);
    driver.await.expect("no panic");
    if spoken.tells_the_end() {
        gateway.ended().await.expect("an orderly end");
    }
}

async fn pops_and_messages_come_complete_and_in_order(spoken: Spoken) {
    const NUMBERS: u32 = 300;
    let Some(server) = server() else { return };
    let (bed, listener) = Bed::start(spoken, 1_500).await;
    let _gateway = Gateway::start(listener, move || server.connect());

    let info = RedisConnectionInfo::default();
    let mut subscriber = PubSub::new(&info, bed.connect().await)
        .await
        .expect("Redis answers");
    subscriber
        .subscribe("messages")
        .await
        .expect("Redis takes it");
    let messages = tokio::spawn(async move {
        let numbered = subscriber
            .on_message()
            .map(|message: Msg| message.get_payload::<u32>().expect("a number"));
        numbered.take(NUMBERS as usize).collect::<Vec<u32>>().await
    });

    let (mut consumer, _) = open(&bed, patient()).await;
    let pops = tokio::spawn(async move {
        let mut popped = Vec::new();
        while popped.len() < NUMBERS as usize {
            let (_, number): (String, u32) = consumer.blpop("queue", 0.0).await.expect("a number");
            popped.push(number);
        }
        popped
    });

    let (mut producer, _) = open(&bed, patient()).await;
    for number in 0..NUMBERS {
        let mut both = pipe();
        both.rpush("queue", number).publish("messages", number);
        let (_, listeners): (u32, u32) = both.query_async(&mut producer).await.expect("answers");
        assert_eq!(listeners, 1);
    }
    assert_eq!(pops.await.expect("no panic"), Vec::from_iter(0..NUMBERS));
    assert_eq!(
        messages.await.expect("no panic"),
        Vec::from_iter(0..NUMBERS)
    );
    bed.assert_cut(5);
}

async fn a_session_that_dies_is_an_error_of_the_next_command(spoken: Spoken) {
    let Some(server) = server() else { return };
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let sessions = listener.sessions();
    let mut gateway = Gateway::start(listener, move || server.connect());
    let (mut connection, driver) = open(&bed, patient()).await;
    let count: u32 = connection.incr("count", 1).await.expect("a number");
    assert_eq!(count, 1);

    let session = &bed.sessions()[0];
    let sent = session.stats().sent;
    let mut other = connection.clone();
    let waiting =
        tokio::spawn(async move { other.blpop::<_, (String, u32)>("nothing", 0.0).await });
    while session.stats().sent == sent {
        sleep(LOOK).await;
    }
    assert!(sessions.close(session.id(), 7), "it is there");
    // What was in flight says why.
    let error = waiting.await.expect("no panic").expect_err("it is dead");
    assert!(unbroken::Error::find(&error).is_some(), "{error:?}");
    driver.await.expect("no panic");
    let error = connection.incr::<_, _, u32>("count", 1).await;
    let error = error.expect_err("there is no session");
    assert!(error.is_connection_dropped(), "{error:?}");
    gateway.ended().await.expect_err("it is dead");
}

/// The crate's default waits half a second for an answer; what is late is taken for none, and not for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_late_is_a_timeout_and_the_next_is_the_right_one() {
    under_cuts(|| async {
        let Some(server) = server() else { return };
        let (bed, listener) = Bed::start(Spoken::Native, 2 << 10).await;
        let _gateway = Gateway::start(listener, move || server.connect());
        let (mut connection, _driver) = open(&bed, AsyncConnectionConfig::new()).await;
        let mut patient = connection.clone();
        patient.set_response_timeout(Duration::from_secs(60));

        bed.proxy.set_traffic(Traffic::Hold);
        let late = cmd("ECHO")
            .arg("late")
            .query_async::<String>(&mut connection)
            .await;
        let error = late.expect_err("nothing comes through");
        assert!(error.is_timeout(), "{error:?}");
        assert!(unbroken::Error::find(&error).is_none(), "{error:?}");
        bed.proxy.set_traffic(Traffic::Forward);
        for number in 0..100_u32 {
            let echoed: u32 = cmd("ECHO")
                .arg(number)
                .query_async(&mut patient)
                .await
                .expect("the session is alive");
            assert_eq!(echoed, number);
        }
        let state = bed.sessions()[0].state();
        assert!(!matches!(state, LinkState::Closed(_)), "{state:?}");
    })
    .await;
}
