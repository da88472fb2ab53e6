//! A subscriber that keeps everything that is traced on a thread.

// Each of its users takes a part of it.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::{DefaultGuard, set_default},
};

/// What was traced.
#[derive(Clone, Default)]
pub(crate) struct Capture(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// A span's id is its index, and 1.
    spans: Vec<Told>,
    /// Those that are entered, the innermost last.
    entered: Vec<u64>,
    events: Vec<Told>,
}

/// An event or a span.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    /// A span's name, an event's message.
    pub(crate) what: String,
    pub(crate) fields: BTreeMap<&'static str, String>,
    /// The spans around it, the innermost last.
    pub(crate) spans: Vec<Told>,
}

impl Told {
    fn new(metadata: &'static Metadata<'static>, spans: Vec<Told>) -> Self {
        Self {
            level: *metadata.level(),
            target: metadata.target(),
            what: metadata.name().to_owned(),
            fields: BTreeMap::new(),
            spans,
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    /// The span of this name around it.
    pub(crate) fn span(&self, name: &str) -> Option<&Told> {
        self.spans.iter().find(|span| span.what == name)
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        if field.name() == "message" {
            self.what = value;
        } else {
            self.fields.insert(field.name(), value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl Capture {
    /// Captures what this thread traces, as long as the guard is there.
    pub(crate) fn here() -> (Self, DefaultGuard) {
        let capture = Self::default();
        let guard = set_default(capture.clone());
        (capture, guard)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events so far, of all crates.
    pub(crate) fn events(&self) -> Vec<Told> {
        self.lock().events.clone()
    }

    /// The library's.
    pub(crate) fn ours(&self) -> Vec<Told> {
        let mut events = self.events();
        events.retain(|event| event.target.split("::").next() == Some("unbroken"));
        events
    }

    /// Everything that was traced, spans included.
    pub(crate) fn text(&self) -> String {
        let state = self.lock();
        format!("{:?}\n{:?}", state.spans, state.events)
    }
}

impl State {
    fn around(&self) -> Vec<Told> {
        let span = |id: &u64| self.spans[*id as usize - 1].clone();
        self.entered.iter().map(span).collect()
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut state = self.lock();
        let spans = if attributes.is_root() {
            Vec::new()
        } else {
            state.around()
        };
        let mut span = Told::new(attributes.metadata(), spans);
        attributes.record(&mut span);
        state.spans.push(span);
        Id::from_u64(state.spans.len() as u64)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        values.record(&mut self.lock().spans[id.into_u64() as usize - 1]);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut told = Told::new(event.metadata(), self.lock().around());
        event.record(&mut told);
        self.lock().events.push(told);
    }

    fn enter(&self, id: &Id) {
        self.lock().entered.push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let mut state = self.lock();
        let at = state
            .entered
            .iter()
            .rposition(|open| *open == id.into_u64());
        if let Some(at) = at {
            state.entered.remove(at);
        }
    }
}
