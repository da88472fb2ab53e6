//! Another process of the same program, which is told what to do line by line over its standard input, and answers over its standard
//! output.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{self, ChildStdout, Command, Stdio},
    thread,
};

use tokio::sync::mpsc;

/// The process; it is killed when this is dropped.
pub(crate) struct Child {
    process: process::Child,
    answers: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn spawn(arguments: &[&str]) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = process.stdout.take().expect("it is piped");
        Ok(Self {
            process,
            answers: BufReader::new(answers),
        })
    }

    pub(crate) fn tell(&mut self, order: &str) -> io::Result<()> {
        let orders = self.process.stdin.as_mut().expect("it is piped");
        writeln!(orders, "{order}")?;
        orders.flush()
    }

    /// Blocks the thread until it says something.
    pub(crate) fn hear(&mut self) -> io::Result<String> {
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 {
            return Err(io::Error::other("the other process has ended"));
        }
        answer.truncate(answer.trim_end().len());
        Ok(answer)
    }

    pub(crate) fn ask(&mut self, order: &str) -> io::Result<String> {
        self.tell(order)?;
        self.hear()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What this process is told to do, where it is the other one. Ends with the process that gives the orders.
pub(crate) fn orders() -> mpsc::UnboundedReceiver<String> {
    let (outgoing, incoming) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for order in io::stdin().lines().map_while(Result::ok) {
            if outgoing.send(order).is_err() {
                return;
            }
        }
    });
    incoming
}

/// Answers the process that gives the orders.
pub(crate) fn answer(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
