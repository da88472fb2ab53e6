//! tonic: who is at the other end of a connection.

use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::ResumableTransport;

#[cfg_attr(docsrs, doc(cfg(feature = "tonic")))]
impl Connected for ResumableTransport {
    /// tonic's own, so that [`Request::remote_addr`](tonic::Request::remote_addr) works. The address is that of the link when tonic
    /// took the session over; later ones are for [`Handle::peer_addr`](crate::Handle::peer_addr) to tell.
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo {
            local_addr: None,
            remote_addr: self.handle().peer_addr(),
        }
    }
}
