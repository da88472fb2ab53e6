//! Real sockets on the loopback interface.

use std::net::Ipv4Addr;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use super::*;
use crate::Error;

const LIMIT: usize = 64 * 1024;

/// An address that refuses as long as the socket is held: bound, so that nobody else gets the port, and not listening.
fn dead() -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let address = socket
        .local_addr()?
        .as_socket()
        .ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket, address))
}

async fn live() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn buffers(stream: &TcpStream) -> io::Result<[usize; 2]> {
    let socket = SockRef::from(stream);
    Ok([socket.send_buffer_size()?, socket.recv_buffer_size()?])
}

fn assert_within(limit: usize, stream: &TcpStream) -> io::Result<()> {
    let sizes = buffers(stream)?;
    assert!(
        sizes.iter().all(|size| (limit / 2..=limit).contains(size)),
        "{sizes:?}, limit {limit}"
    );
    Ok(())
}

#[tokio::test]
async fn every_kind_of_target_is_dialled_with_the_options_set() -> io::Result<()> {
    let (_listener, address) = live().await?;
    let (mut tcp, text) = (TcpConnector::new(), address.to_string());
    let uri: Uri = format!("http://{text}/path")
        .parse()
        .map_err(io::Error::other)?;
    let literal: &'static str = text.clone().leak();
    for dialling in [
        tcp.call(uri),
        tcp.call(address),
        tcp.call((address.ip().to_string(), address.port())),
        tcp.call(text),
        tcp.call(literal),
        tcp.call(Target::from(address)),
    ] {
        let stream = dialling.await?;
        assert_eq!(stream.peer_addr()?, address);
        assert!(stream.nodelay()?);
        assert!(SockRef::from(&stream).keepalive()?);
    }
    let stream = TcpConnector::new()
        .nodelay(false)
        .keepalive(None)
        .call(address)
        .await?;
    assert!(!stream.nodelay()?);
    assert!(!SockRef::from(&stream).keepalive()?);
    Ok(())
}

#[tokio::test]
async fn what_is_no_target_is_invalid_input_with_our_error_inside() {
    let error = TcpConnector::new()
        .call("no port")
        .await
        .expect_err("there is no port");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(matches!(
        error.get_ref().and_then(|inner| inner.downcast_ref()),
        Some(Error::Target { target, .. }) if target == "no port"
    ));
}

#[tokio::test]
async fn a_dead_address_fails_over_to_a_live_one() -> io::Result<()> {
    let ((_held, dead), (_listener, live)) = (dead()?, live().await?);
    // No delay ever passes: the failure alone starts the second attempt.
    let tcp = TcpConnector::new().attempt_delay(Duration::MAX);
    let stream = tcp
        .connect(Target::from(("name", 1)), vec![dead, live])
        .await?;
    assert_eq!(stream.peer_addr()?, live);
    Ok(())
}

#[tokio::test]
async fn when_all_fail_the_error_says_so_and_keeps_the_last() -> io::Result<()> {
    let ((_held, one), (_held_too, other)) = (dead()?, dead()?);
    let (tcp, target) = (TcpConnector::new(), Target::from(("name", 1)));
    let error = tcp
        .connect(target.clone(), vec![one, other])
        .await
        .expect_err("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(error.to_string(), "cannot dial name:1 (addresses tried: 2)");
    let source = StdError::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
    assert!(
        source.is_some_and(|source| source.raw_os_error().is_some()),
        "{source:?}"
    );

    let error = tcp
        .connect(target, vec![])
        .await
        .expect_err("there is no address");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    Ok(())
}

#[tokio::test]
async fn the_smaller_of_both_buffer_limits_holds() -> io::Result<()> {
    let (_listener, address) = live().await?;
    let mut tcp = TcpConnector::new();
    assert!(
        buffers(&tcp.call(address).await?)?
            .iter()
            .any(|size| *size > LIMIT),
        "the limit would test nothing"
    );
    assert_within(
        LIMIT,
        &tcp.clone().socket_buffer_limit(LIMIT).call(address).await?,
    )?;
    for (own, asked_for) in [
        (None, LIMIT),
        (Some(LIMIT), 2 * LIMIT),
        (Some(2 * LIMIT), LIMIT),
    ] {
        tcp.socket_buffer_limit = own;
        // The future is polled outside the scope: the limit was read in `call`.
        let dialling = SOCKET_BUFFER_LIMIT.sync_scope(Some(asked_for), || tcp.call(address));
        assert_within(LIMIT, &dialling.await?)?;
    }
    let error = tcp
        .socket_buffer_limit(1)
        .call(address)
        .await
        .expect_err("no system has buffers of 1 byte");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    Ok(())
}

#[tokio::test]
async fn a_socket_that_met_itself_is_refused() -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = socket.local_addr()?;
    let error = not_to_itself(socket.connect(address).await?, address).expect_err("it met itself");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    Ok(())
}
