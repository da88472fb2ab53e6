//! tokio-postgres, and a PostgreSQL that knows nothing of sessions.

use std::{
    fmt::Write as _,
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt, future::try_join_all};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{net::UnixStream, task::JoinHandle, time::sleep};
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls, error::SqlState};
use unbroken::Listener;

use crate::{
    bed::{Bed, Spoken, over_each},
    cutting_proxy::Close,
    servers::{Gateway, LOOK, Server, folder, installed, run, unprivileged},
};

over_each!(
    copies_go_in_and_come_out_whole,
    statements_are_executed_once_and_in_order,
    notifications_come_complete_and_in_order,
    a_query_that_fails_is_an_error_and_the_session_goes_on,
    a_session_that_dies_takes_its_transaction_along,
);

const PORT: &str = "5432";
const SLEEP: &str = "SELECT pg_sleep(60)";

/// One for all tests that run at the same time.
fn server() -> Option<Arc<Server>> {
    static RUNNING: Mutex<Weak<Server>> = Mutex::new(Weak::new());

    let postgres = installed("postgres")?;
    // A test that failed to start it fails alone.
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = running.upgrade() {
        return Some(server);
    }
    let folder = folder();
    run(unprivileged(&postgres.with_file_name("initdb"), &folder)
        .args(["--pgdata=data", "--username=unbroken", "--auth=trust"])
        .args(["--encoding=UTF8", "--no-locale", "--no-sync"]));
    let at = folder.path().to_str().expect("a name in UTF-8").to_owned();
    let mut args = vec!["-D", "data", "-k", &at, "-p", PORT];
    for setting in [
        "listen_addresses=",
        "fsync=off",
        "shared_buffers=16MB",
        // So that the log tells which client has gone, and, from debug1 on, whether it did so without a word.
        "log_line_prefix=%a: ",
        "log_disconnections=on",
        "log_min_messages=debug1",
    ] {
        args.extend(["-c", setting]);
    }
    let socket = format!(".s.PGSQL.{PORT}");
    let server = Arc::new(Server::start(&postgres, &args, folder, &socket));
    *running = Arc::downgrade(&server);
    Some(server)
}

/// A proxy that cuts after about so many bytes, and what it leads to.
async fn bed(server: &Arc<Server>, spoken: Spoken, cut_bytes: u64) -> (Bed, Gateway) {
    let (bed, listener) = Bed::start(spoken, cut_bytes).await;
    (bed, gateway(server, listener))
}

fn gateway(server: &Arc<Server>, listener: Listener) -> Gateway {
    let server = server.clone();
    Gateway::start(listener, move || server.connect())
}

/// The client's settings; it has a name of its own in the server's log.
fn config(name: &str) -> Config {
    let mut config = Config::new();
    config
        .user("unbroken")
        .dbname("postgres")
        .application_name(name);
    config
}

/// A client on a session, and what drives it.
async fn open(bed: &Bed, name: &str) -> (Client, JoinHandle<Result<(), Error>>) {
    let transport = bed.connect().await;
    let opened = config(name).connect_raw(transport, NoTls).await;
    let (client, connection) = opened.expect("PostgreSQL answers");
    (client, tokio::spawn(connection))
}

/// A client without a session below it.
async fn open_directly(server: &Server) -> Client {
    let stream = server.connect().expect("PostgreSQL is there");
    stream.set_nonblocking(true).expect("it is a socket");
    let stream = UnixStream::from_std(stream).expect("it is a socket");
    let opened = config("direct").connect_raw(stream, NoTls).await;
    let (client, connection) = opened.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

/// The client is dropped, and both PostgreSQL and the gateway see an orderly end.
async fn end(
    client: Client,
    connection: JoinHandle<Result<(), Error>>,
    name: &str,
    server: &Server,
    (bed, mut gateway): (&Bed, Gateway),
) {
    drop(client);
    connection.await.expect("no panic").expect("it ends");
    server.has_logged(&[name, "disconnection"]).await;
    let unexpected = |line: &str| line.contains(name) && line.contains("unexpected EOF");
    let log = server.log();
    assert!(!log.lines().any(unexpected), "no Terminate: {log}");
    if bed.spoken.tells_the_end() {
        gateway.ended().await.expect("an orderly end");
    }
}

/// Cuts the link of the client's session, and waits until it has another.
async fn cut(bed: &Bed) {
    let session = &bed.sessions()[0];
    let mut state = session.subscribe();
    let resumes = session.stats().resumes;
    bed.proxy.cut_now(Close::Reset);
    while session.stats().resumes == resumes {
        state.changed().await.expect("the session is alive");
    }
}

/// Numbered rows, as COPY has them.
fn rows(count: u32) -> String {
    let mut rng = StdRng::seed_from_u64(1);
    let mut rows = String::new();
    for number in 0..count {
        let [a, b]: [u128; 2] = rng.random();
        writeln!(rows, "{number}\t{a:032x}{b:032x}").expect("a string grows");
    }
    rows
}

async fn copies_go_in_and_come_out_whole(spoken: Spoken) {
    const ROWS: u32 = 30_000;
    let Some(server) = server() else { return };
    let (bed, gateway) = bed(&server, spoken, 64 << 10).await;
    let name = format!("copies {spoken:?}");
    let (client, connection) = open(&bed, &name).await;
    let created = client
        .batch_execute("CREATE TEMP TABLE rows (number int, content text)")
        .await;
    created.expect("a table");

    let rows = rows(ROWS);
    let sink = client.copy_in("COPY rows FROM STDIN").await;
    let mut sink = pin!(sink.expect("PostgreSQL takes rows"));
    for (number, piece) in rows.as_bytes().chunks(7_001).enumerate() {
        let sent = sink.send(Bytes::copy_from_slice(piece)).await;
        sent.expect("PostgreSQL takes more");
        if number % 20 == 0 {
            cut(&bed).await;
        }
    }
    let copied = sink.finish().await.expect("all were rows");
    assert_eq!(copied, u64::from(ROWS));

    let out = "COPY (SELECT * FROM rows ORDER BY number) TO STDOUT";
    let stream = client.copy_out(out).await;
    let mut stream = pin!(stream.expect("PostgreSQL has rows"));
    let mut came = Vec::new();
    for number in 1.. {
        let Some(piece) = stream.try_next().await.expect("PostgreSQL has more") else {
            break;
        };
        came.extend_from_slice(&piece);
        if number % 2_000 == 0 {
            cut(&bed).await;
        }
    }
    assert!(came == rows.as_bytes(), "other rows came out");

    bed.assert_cut(25);
    end(client, connection, &name, &server, (&bed, gateway)).await;
}

async fn statements_are_executed_once_and_in_order(spoken: Spoken) {
    let Some(server) = server() else { return };
    let (bed, gateway) = bed(&server, spoken, 512).await;
    let name = format!("statements {spoken:?}");
    let (mut client, connection) = open(&bed, &name).await;
    let created = client
        .batch_execute("CREATE TEMP TABLE numbers (place serial, number int)")
        .await;
    created.expect("a table");
    let insert = "INSERT INTO numbers (number) VALUES ($1) RETURNING number";
    let insert = client.prepare(insert).await.expect("a statement");

    // One at a time, as transactions of their own.
    for number in 0..200 {
        let row = client.query_one(&insert, &[&number]).await.expect("a row");
        assert_eq!(row.get::<_, i32>(0), number);
    }
    // Several hundred under way, in a transaction.
    let transaction = client.transaction().await.expect("a transaction");
    let numbers: Vec<i32> = (200..1_000).collect();
    let inserts = numbers.iter().map(|number| async {
        let row = transaction.query_one(&insert, &[number]).await?;
        Ok::<i32, Error>(row.get(0))
    });
    let inserted = try_join_all(inserts).await.expect("all are executed");
    assert_eq!(inserted, numbers);
    transaction.commit().await.expect("it is committed");
    // In one that is taken back.
    let transaction = client.transaction().await.expect("a transaction");
    let inserted = transaction.execute(&insert, &[&-1]).await;
    assert_eq!(inserted.expect("a row"), 1);
    transaction.rollback().await.expect("it is taken back");

    let inserted = client
        .query("SELECT number FROM numbers ORDER BY place", &[])
        .await
        .expect("rows");
    let inserted: Vec<i32> = inserted.iter().map(|row| row.get(0)).collect();
    assert_eq!(inserted, Vec::from_iter(0..1_000));

    bed.assert_cut(5);
    end(client, connection, &name, &server, (&bed, gateway)).await;
}

async fn notifications_come_complete_and_in_order(spoken: Spoken) {
    const NOTIFICATIONS: u32 = 200;
    let Some(server) = server() else { return };
    let (bed, gateway) = bed(&server, spoken, 2 << 10).await;
    let channel = format!("numbers_{spoken:?}");

    let transport = bed.connect().await;
    let opened = config("listens").connect_raw(transport, NoTls).await;
    let (client, mut connection) = opened.expect("PostgreSQL answers");
    let listener = tokio::spawn(async move {
        let mut payloads = Vec::new();
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message.expect("the session is alive")
            {
                payloads.push(notification.payload().to_owned());
            }
            if payloads.len() == NOTIFICATIONS as usize {
                break;
            }
        }
        payloads
    });
    let listening = client.batch_execute(&format!("LISTEN \"{channel}\"")).await;
    listening.expect("PostgreSQL notifies");

    let name = format!("notifies {spoken:?}");
    let (notifier, connection) = open(&bed, &name).await;
    for number in 0..NOTIFICATIONS {
        let sent = notifier
            .execute("SELECT pg_notify($1, $2)", &[&channel, &number.to_string()])
            .await;
        sent.expect("it is sent");
    }
    let expected: Vec<String> = (0..NOTIFICATIONS)
        .map(|number| number.to_string())
        .collect();
    assert_eq!(listener.await.expect("no panic"), expected);

    bed.assert_cut(10);
    drop(client);
    end(notifier, connection, &name, &server, (&bed, gateway)).await;
}

async fn a_query_that_fails_is_an_error_and_the_session_goes_on(spoken: Spoken) {
    let Some(server) = server() else { return };
    let (bed, gateway) = bed(&server, spoken, 512).await;
    let direct = open_directly(&server).await;
    let name = format!("fails {spoken:?}");
    let (client, connection) = open(&bed, &name).await;
    let is = |failed: Result<Vec<_>, Error>, state: SqlState| {
        let error = failed.expect_err("it cannot succeed");
        assert_eq!(error.code(), Some(&state), "{error}");
    };
    for number in 0..15 {
        let failed = client.simple_query("SELECT 1 / 0").await;
        is(failed, SqlState::DIVISION_BY_ZERO);

        let late = format!("SET LOCAL statement_timeout = 10; {SLEEP}");
        let failed = client.simple_query(&late).await;
        is(failed, SqlState::QUERY_CANCELED);

        // A cancellation is a session of its own, which ends with it: over snet it would be lost with its link.
        if spoken.tells_the_end() {
            let query = client.simple_query(SLEEP);
            let (failed, ()) = tokio::join!(query, cancel(&bed, &client, &direct, &name));
            is(failed, SqlState::QUERY_CANCELED);
        } else {
            cut(&bed).await;
        }

        let row = client.query_one("SELECT $1::int", &[&number]).await;
        let row = row.expect("the session goes on");
        assert_eq!(row.get::<_, i32>(0), number);
    }
    bed.assert_cut(15);
    end(client, connection, &name, &server, (&bed, gateway)).await;
}

/// Cancels the client's query once it is being executed, for a cancellation that comes before is for nothing; and cuts the client's link
/// meanwhile.
async fn cancel(bed: &Bed, client: &Client, direct: &Client, name: &str) {
    let active = format!(
        "SELECT FROM pg_stat_activity \
        WHERE application_name = $1 AND state = 'active' AND query = '{SLEEP}'"
    );
    while direct
        .query(&active, &[&name])
        .await
        .expect("rows")
        .is_empty()
    {
        sleep(LOOK).await;
    }
    cut(bed).await;
    let transport = bed.connect().await;
    let token = client.cancel_token();
    let cancelled = token.cancel_query_raw(transport, NoTls).await;
    cancelled.expect("PostgreSQL has it");
}

async fn a_session_that_dies_takes_its_transaction_along(spoken: Spoken) {
    let Some(server) = server() else { return };
    let (bed, listener) = Bed::start(spoken, 2 << 10).await;
    let sessions = listener.sessions();
    let mut gateway = gateway(&server, listener);
    let table = format!("\"dies {spoken:?}\"");
    let direct = open_directly(&server).await;
    let created = direct
        .batch_execute(&format!("CREATE TABLE {table} (number int)"))
        .await;
    created.expect("a table");

    let name = format!("dies {spoken:?}");
    let (client, connection) = open(&bed, &name).await;
    let insert = format!("INSERT INTO {table} VALUES (1)");
    client
        .batch_execute(&insert)
        .await
        .expect("it is committed");
    let open = format!("BEGIN; {insert}");
    client.batch_execute(&open).await.expect("it is inserted");

    let id = bed.sessions()[0].id();
    assert!(sessions.close(id, 7), "it is there");
    let error = client.query("SELECT 1", &[]).await;
    let error = error.expect_err("there is no session");
    assert!(error.is_closed(), "{error:?}");
    assert!(client.is_closed());
    // The client says that it is over, and what drove it says why.
    let error = connection.await.expect("no panic").expect_err("it is dead");
    assert!(unbroken::Error::find(&error).is_some(), "{error:?}");
    gateway.ended().await.expect_err("it is dead");

    server.has_logged(&[&name, "disconnection"]).await;
    let left = direct.query(&format!("SELECT * FROM {table}"), &[]).await;
    assert_eq!(left.expect("rows").len(), 1, "the open transaction counts");
}
