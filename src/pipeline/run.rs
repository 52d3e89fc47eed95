//! Running server: starts the threads and tasks of a built pipeline, and drains them at shutdown.
//!
//! Owns the order of draining: connections, then the record queue, then gathering, then outputs,
//! then the journal. What is not drained within the grace stays in the journal.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::build::Pipeline;
use super::error::BuildError;
use super::outputs::RunningOutputs;
use super::progress::{Progress, SAMPLE_INTERVAL, StageSample};
use crate::allocator::{self, IdleCollector};
use crate::buffer_pool::BufferPool;
use crate::cluster::Cluster;
use crate::gather::{
    Dependencies, Gatherer, Gauges, QueueConsumer, RecordQueue, RejectBuffer, Router, Settings,
};
use crate::input::forward::{self, ReceiveBudget, Security};
use crate::input::http::HttpServer;
use crate::logging::WarningLimiter;
use crate::memory::{MemoryShares, to_usize};
use crate::metrics::Metrics;
use crate::output::LineCounters;
use crate::runtime::{self, CpuPool};
use windrow_journal::Journal;

/// Time that outputs have to end after the grace is over.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the stages are asked whether they are drained.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The threads and tasks of a running server.
struct Running {
    connections: TaskTracker,
    cluster: Option<Arc<Cluster>>,
    queue: Arc<RecordQueue>,
    gauges: Arc<Gauges>,
    gathering: JoinHandle<()>,
    outputs: RunningOutputs,
    journal: Journal,
    /// Ends waits for outputs and for the dead letter.
    give_up: Arc<AtomicBool>,
    /// Ends the work of the Elasticsearch output.
    abandon: CancellationToken,
}

impl Pipeline {
    /// Runs until `stop` is cancelled, then drains for at most the configured grace.
    ///
    /// # Errors
    ///
    /// [`BuildError::Thread`] when the system gives no thread.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BuildError> {
        let grace = self.config.shutdown_grace;
        let running = self.start(&stop)?;
        stop.cancelled().await;
        running.drain(grace).await;
        Ok(())
    }

    fn start(self, stop: &CancellationToken) -> Result<Running, BuildError> {
        let Self {
            config,
            metrics,
            journal,
            queue,
            admission,
            dead_letter,
            rejected,
            outputs,
            tls,
            cluster,
            listeners,
            http_listeners,
            limiter,
            account,
            gauges,
            open_traces,
            tap,
            output_bytes,
            liveness,
            progress,
            recovery,
            ..
        } = self;
        let give_up = Arc::new(AtomicBool::new(false));
        let abandon = CancellationToken::new();
        let framing = outputs.framing();
        let router = Router::new(&config, outputs.destinations());
        let asking = outputs.answer_silent(&abandon);
        let (senders, outputs) = outputs
            .start(&metrics, &dead_letter, &give_up, &abandon, &liveness)
            .map_err(BuildError::Thread)?;

        tokio::spawn(sample_progress(
            progress,
            Arc::clone(&queue),
            Arc::clone(&account),
            Arc::clone(&metrics),
            abandon.clone(),
        ));
        let settings = Settings::from_config(&config);
        let buffer_pool = Arc::<BufferPool>::default();
        let dependencies = Dependencies {
            journal: journal.clone(),
            outputs: senders,
            asking,
            resumed: cluster
                .as_ref()
                .filter(|_| recovery.unreleased_records > 0)
                .map(|cluster| (recovery.next_lsn, cluster.resume())),
            tap,
            output_bytes,
            framing,
            account: Arc::clone(&account),
            metrics: Arc::clone(&metrics),
            rejects: RejectBuffer::new(rejected, Arc::clone(&metrics), account),
            gauges: Arc::clone(&gauges),
            open_traces,
            router,
            admission: Arc::clone(&admission),
            buffer_pool: Arc::clone(&buffer_pool),
            stop: Arc::clone(&give_up),
        };
        let consumer = QueueConsumer::new(Arc::clone(&queue), journal.clone());
        let gatherer = Gatherer::new(settings, dependencies);
        let guard = liveness.guard("gathering");
        let gathering = std::thread::Builder::new()
            .name("gather".into())
            .spawn(move || {
                gatherer.run(consumer);
                guard.finish();
            })
            .map_err(BuildError::Thread)?;

        let connections = TaskTracker::new();
        let context = Arc::new(forward::Context {
            journal: journal.clone(),
            cluster: cluster.clone(),
            admission,
            buffer_pool,
            receive_budget: ReceiveBudget::new(MemoryShares::of(config.memory_limit).receive),
            warnings: WarningLimiter::default(),
            metrics,
            limits: forward::frame_limits(&config.forward),
            proxy_protocol: config.forward.proxy_protocol,
            json: config.forward.json,
            max_decompressed: to_usize(config.forward.max_decompressed),
            decompression: forward::DecompressionPool::default(),
            cpu_pool: CpuPool::default(),
            security: Security::from_config(&config),
            tls,
            handshake_timeout: config.forward.handshake_timeout,
            progress_timeout: config.forward.progress_timeout,
            ack_timeout: config.forward.ack_timeout,
            idle_timeout: config.forward.idle_timeout,
            max_connection_age: config.forward.max_connection_age,
            max_connection_age_jitter: config.forward.max_connection_age_jitter,
            stop: stop.clone(),
            tasks: connections.clone(),
        });
        connections.spawn(forward::sum_up_warnings(Arc::clone(&context)));
        for listener in listeners {
            connections.spawn(listener.serve(Arc::clone(&context), Arc::clone(&limiter)));
        }
        if !http_listeners.is_empty() {
            let server = HttpServer::new(context, &config);
            for listener in http_listeners {
                connections.spawn(listener.serve(Arc::clone(&server), Arc::clone(&limiter)));
            }
        }
        if let Some(cluster) = &cluster {
            cluster.start();
        }
        Ok(Running {
            connections,
            cluster,
            queue,
            gauges,
            gathering,
            outputs,
            journal,
            give_up,
            abandon,
        })
    }
}

impl Running {
    /// Stops the stages in the order of the data, each with what is left of the grace.
    async fn drain(self, grace: Duration) {
        let deadline = Instant::now() + grace;
        tracing::info!(?grace, "stopping: no new connections, draining");
        self.connections.close();
        if tokio::time::timeout_at(deadline, self.connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.connections.len(),
                "closing connections in the middle of a message; their clients get no ack and send it again"
            );
        }
        if let Some(cluster) = &self.cluster {
            cluster.stop();
        }
        drain_queue(&self.queue, &self.gauges, deadline).await;
        self.queue.close();
        if !join_by(self.gathering, deadline).await {
            self.give_up.store(true, Ordering::Relaxed);
        }
        // The gatherer has ended or gives up, which closes the outputs' channels: they end once all
        // is confirmed.
        if !self.outputs.finish_by(deadline).await {
            tracing::warn!(
                "the outputs did not store everything within the grace; the rest stays in the journal"
            );
            self.give_up.store(true, Ordering::Relaxed);
            self.abandon.cancel();
            self.outputs.finish_by(Instant::now() + ABANDON_TIMEOUT).await;
        }
        self.journal.close();
        self.abandon.cancel();
    }
}

/// Samples the progress of gathering and outputs until the server has ended. While there is none,
/// socket threads return freed memory.
async fn sample_progress(
    progress: Progress,
    queue: Arc<RecordQueue>,
    account: Arc<LineCounters>,
    metrics: Arc<Metrics>,
    end: CancellationToken,
) {
    let mut collector = IdleCollector::default();
    let mut done_before = 0;
    let sample = async {
        loop {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let backlog = queue.backlog();
            let gathering = StageSample {
                waiting: backlog.bytes > 0 || backlog.on_disk,
                done: metrics.input_records.get() + metrics.input_chunks_duplicate.get(),
            };
            let outputs = StageSample {
                waiting: load(&account.in_flight) > 0,
                done: load(&account.delivered) + load(&account.duplicate) + load(&account.dead),
            };
            let now = Instant::now().into_std();
            let done = gathering.done + outputs.done;
            if std::mem::replace(&mut done_before, done) != done {
                collector.busy();
            } else if collector.is_due(now) {
                runtime::on_workers(allocator::collect);
            }
            progress.sample([gathering, outputs], now);
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
    };
    end.run_until_cancelled(sample).await;
}

/// Waits until all records in memory are gathered. Records that are only in the journal are left to
/// the next start.
async fn drain_queue(queue: &RecordQueue, gauges: &Gauges, deadline: Instant) {
    while Instant::now() < deadline {
        let backlog = queue.backlog();
        if backlog.on_disk || (backlog.bytes == 0 && gauges.idle.load(Ordering::Relaxed)) {
            return;
        }
        tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
    }
}

/// Joins a thread; `false` when it has not ended by the deadline, or has panicked.
async fn join_by(thread: JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
    }
    thread.join().is_ok()
}
