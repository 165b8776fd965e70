//! Makes metrics, registers them, and writes them in the format of Prometheus.
//!
//! The one rule: no metric exists without its registration, so none is counted that no reader can see.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Error, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Makes metrics for one registry.
pub struct MetricRegistrar<'a>(&'a Registry);

impl<'a> MetricRegistrar<'a> {
    /// A registrar for this registry.
    pub fn of(registry: &'a Registry) -> Self {
        Self(registry)
    }

    /// A counter.
    ///
    /// # Errors
    /// The name is not one of Prometheus, or is registered.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.registered(IntCounter::new(name, help)?)
    }

    /// A counter for each value of the labels.
    ///
    /// # Errors
    /// The name is not one of Prometheus, or is registered.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// A gauge.
    ///
    /// # Errors
    /// The name is not one of Prometheus, or is registered.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.registered(IntGauge::new(name, help)?)
    }

    /// A gauge for each value of the labels.
    ///
    /// # Errors
    /// The name is not one of Prometheus, or is registered.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.registered(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// A histogram with these upper bounds.
    ///
    /// # Errors
    /// The name is not one of Prometheus, or is registered.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.registered(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn registered<T: Collector + Clone + 'static>(&self, metric: T) -> Result<T, Error> {
        self.0.register(Box::new(metric.clone())).map(|()| metric)
    }
}

/// All metrics of a registry as text (Prometheus exposition format 0.0.4).
pub fn text(registry: &Registry) -> Vec<u8> {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::error!(%error, "metrics cannot be written");
    }
    text
}
