import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;

/**
 * The drift windows on Kafka Streams: decode and count per partition, merge the partitions' histograms of
 * a window through a topic, score it, and write the scores to another topic.
 *
 * Arguments: number of stream threads, the job's file. The state is on the heap and has no changelog.
 */
public final class DriftWindows {
    private static final int WARM_UP_EVENTS = 400_000;

    public static void main(String[] arguments) throws Exception {
        Job job = new Job(new ObjectMapper().readTree(new File(arguments[1])));
        String partials = "bench-partials-" + job.run;
        String scores = "bench-scores-" + job.run;
        createTopics(job, partials, scores);
        warmUp(job);

        Scores found = new Scores(job.models.length * job.windows);
        Clock clock = new Clock();
        Topology topology = new Topology();
        topology.addSource("predictions", job.topic)
                .addProcessor("windows", () -> new Windows(job, clock), "predictions")
                .addSink("to-merge", partials, "windows")
                .addSource("partials", partials)
                .addProcessor("merge", () -> new Merge(job, found), "partials")
                .addSink("to-scores", scores, "merge");

        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in));
        KafkaStreams streams = new KafkaStreams(topology, settings(job, arguments[0]));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        System.out.println("READY");
        if (orders.readLine() == null) {
            System.exit(1);
        }
        streams.start();
        found.complete.await();
        double ended = System.nanoTime() / 1e9;
        Files.writeString(new File(job.scores).toPath(), found.json());
        double began = clock.first.get() / 1e9;
        System.out.printf("RESULT {\"began\": %.6f, \"ended\": %.6f}%n", began, ended);
        orders.readLine();
        streams.close(Duration.ofSeconds(5));
        System.exit(0);
    }

    private static Properties settings(Job job, String threads) {
        Properties made = new Properties();
        made.put(StreamsConfig.APPLICATION_ID_CONFIG, "bench-" + job.run);
        made.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.bootstrap);
        made.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
        made.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        made.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        // partitions stand for themselves until they are merged: none waits for another
        made.put(StreamsConfig.MAX_TASK_IDLE_MS_CONFIG, "-1");
        made.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, "20000");
        made.put(StreamsConfig.POLL_MS_CONFIG, "10");
        made.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "5000");
        made.put(StreamsConfig.STATE_DIR_CONFIG, new File(job.scores).getParent() + "/state-" + job.run);
        made.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        made.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), "20000");
        made.put(StreamsConfig.consumerPrefix(ConsumerConfig.CHECK_CRCS_CONFIG), "false");
        made.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG), "50");
        made.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), "4194304");
        made.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), "5");
        return made;
    }

    private static void createTopics(Job job, String... names) throws Exception {
        List<NewTopic> wanted = new ArrayList<>();
        for (String name : names) {
            wanted.add(new NewTopic(name, 1, job.replication));
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", (Object) job.bootstrap))) {
            admin.createTopics(wanted).all().get();
        }
    }

    /** Lets the JIT compile the decoder and the counting before the clock runs. */
    private static void warmUp(Job job) {
        Random random = new Random(1);
        Histograms counts = new Histograms(job);
        Prediction into = new Prediction(job);
        byte[][] payloads = new byte[1000][];
        for (int row = 0; row < payloads.length; row++) {
            payloads[row] = sample(job, random);
        }
        for (int row = 0; row < WARM_UP_EVENTS; row++) {
            into.read(payloads[row % payloads.length]);
            counts.add(into);
        }
        if (counts.events != WARM_UP_EVENTS) {
            throw new IllegalStateException("warm-up lost events");
        }
    }

    private static byte[] sample(Job job, Random random) {
        ByteBuffer out = ByteBuffer.allocate(512).order(ByteOrder.LITTLE_ENDIAN);
        out.put(new byte[5]).put((byte) 72).put(new byte[36]);
        for (long left = job.startMs << 1; ; left >>>= 7) {
            if (left < 128) {
                out.put((byte) left);
                break;
            }
            out.put((byte) (left & 127 | 128));
        }
        byte[] model = job.models[random.nextInt(job.models.length)];
        out.put((byte) 0).put((byte) (model.length << 1)).put(model);
        out.putDouble(random.nextDouble()).put((byte) 2);
        for (int place = 1; place < job.edges.length; place++) {
            if (random.nextInt(1000) == 0) {
                out.put((byte) 0);
            } else {
                out.put((byte) 2).putDouble(random.nextGaussian());
            }
        }
        byte[] made = new byte[out.position()];
        out.flip().get(made);
        return made;
    }

    /** When the first record was handed on. */
    static final class Clock {
        final AtomicLong first = new AtomicLong();

        void seen() {
            first.compareAndSet(0, System.nanoTime());
        }
    }

    /** What the harness asks for. */
    static final class Job {
        final String bootstrap, topic, scores, run;
        final byte[][] models;
        final double[][] edges;
        final long[][] reference;
        final String[] columns;
        final long startMs, windowMs, latenessMs;
        final int windows, partitions;
        final short replication;

        Job(JsonNode told) {
            bootstrap = told.get("bootstrap").asText();
            topic = told.get("topic").asText();
            scores = told.get("scores").asText();
            run = told.get("run").asText();
            startMs = told.get("start_ms").asLong();
            windowMs = told.get("window_ms").asLong();
            latenessMs = told.get("lateness_ms").asLong();
            windows = told.get("windows").asInt();
            partitions = told.get("ends").size();
            replication = (short) told.get("replication").asInt();
            models = new byte[told.get("models").size()][];
            for (int row = 0; row < models.length; row++) {
                models[row] = told.get("models").get(row).asText().getBytes(StandardCharsets.UTF_8);
            }
            JsonNode given = told.get("reference");
            columns = new String[given.size()];
            edges = new double[columns.length][];
            reference = new long[columns.length][];
            for (int place = 0; place < columns.length; place++) {
                JsonNode column = given.get(place);
                columns[place] = column.get("name").asText();
                edges[place] = new double[column.get("edges").size()];
                for (int bin = 0; bin < edges[place].length; bin++) {
                    edges[place][bin] = column.get("edges").get(bin).asDouble();
                }
                reference[place] = new long[bins()];
                for (int bin = 0; bin < bins() - 1; bin++) {
                    reference[place][bin] = column.get("counts").get(bin).asLong();
                }
                reference[place][bins() - 1] = column.get("missing").asLong();
            }
        }

        /** Of each column, the missing included. */
        int bins() {
            return edges[0].length + 2;
        }
    }

    /** One decoded prediction; the values are those of the columns, NaN for null. */
    static final class Prediction {
        private static final VarHandle DOUBLE =
                MethodHandles.byteArrayViewVarHandle(double[].class, ByteOrder.LITTLE_ENDIAN);
        final double[] values;
        private final byte[][] models;
        long time;
        int model;
        private int at;

        Prediction(Job job) {
            values = new double[job.columns.length];
            models = job.models;
        }

        /** The fields in the order of the schema: id, time, cause, model version, score, label, features. */
        void read(byte[] payload) {
            at = 5;
            skipText(payload);
            time = readLong(payload);
            if (readLong(payload) == 1) {
                skipText(payload);
            }
            int size = (int) readLong(payload);
            model = -1;
            for (int row = 0; row < models.length; row++) {
                if (equal(payload, size, models[row])) {
                    model = row;
                }
            }
            at += size;
            values[values.length - 1] = readDouble(payload);
            readLong(payload);
            for (int place = 0; place < values.length - 1; place++) {
                values[place] = readLong(payload) == 0 ? Double.NaN : readDouble(payload);
            }
        }

        private boolean equal(byte[] payload, int size, byte[] name) {
            return java.util.Arrays.equals(payload, at, at + size, name, 0, name.length);
        }

        private void skipText(byte[] payload) {
            int size = (int) readLong(payload);
            at += size;
        }

        private double readDouble(byte[] payload) {
            double value = (double) DOUBLE.get(payload, at);
            at += 8;
            return value;
        }

        private long readLong(byte[] payload) {
            long raw = 0;
            for (int shift = 0; ; shift += 7) {
                byte part = payload[at++];
                raw |= (long) (part & 127) << shift;
                if (part >= 0) {
                    return raw >>> 1 ^ -(raw & 1);
                }
            }
        }
    }

    /** Counts of one window: model, column, bin. */
    static final class Histograms {
        final long[][] counts;
        private final double[][] edges;
        private final int bins;
        long events;

        Histograms(Job job) {
            edges = job.edges;
            bins = job.bins();
            counts = new long[job.models.length][job.columns.length * bins];
        }

        void add(Prediction prediction) {
            long[] row = counts[prediction.model];
            for (int place = 0; place < edges.length; place++) {
                double value = prediction.values[place];
                row[place * bins + (value != value ? bins - 1 : bin(edges[place], value))]++;
            }
            events++;
        }

        /** Number of edges that are at most `value`. */
        private static int bin(double[] edges, double value) {
            int low = 0;
            int high = edges.length;
            while (low < high) {
                int middle = low + high >>> 1;
                if (edges[middle] <= value) {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            return low;
        }
    }

    /** Predictions of one partition -> histograms of each window that event time has closed. */
    static final class Windows implements Processor<byte[], byte[], byte[], byte[]> {
        private final Job job;
        private final Clock clock;
        private final Prediction prediction;
        private final TreeMap<Long, Histograms> open = new TreeMap<>();
        private ProcessorContext<byte[], byte[]> context;
        private Histograms newest;
        private long newestStart = Long.MIN_VALUE;
        private long streamTime = Long.MIN_VALUE;
        private long nextClose = Long.MAX_VALUE;

        Windows(Job job, Clock clock) {
            this.job = job;
            this.clock = clock;
            prediction = new Prediction(job);
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> given) {
            context = given;
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            if (streamTime == Long.MIN_VALUE) {
                clock.seen();
            }
            prediction.read(record.value());
            long start = Math.floorDiv(prediction.time, job.windowMs) * job.windowMs;
            if (start != newestStart) {
                newest = open.computeIfAbsent(start, ignored -> new Histograms(job));
                newestStart = start;
                nextClose = open.firstKey() + job.windowMs + job.latenessMs;
            }
            newest.add(prediction);
            if (prediction.time > streamTime) {
                streamTime = prediction.time;
                while (nextClose <= streamTime) {
                    close(record.timestamp());
                }
            }
        }

        private void close(long timestamp) {
            Map.Entry<Long, Histograms> window = open.pollFirstEntry();
            newestStart = Long.MIN_VALUE;
            nextClose = open.isEmpty() ? Long.MAX_VALUE : open.firstKey() + job.windowMs + job.latenessMs;
            for (int model = 0; model < job.models.length; model++) {
                long[] counts = window.getValue().counts[model];
                ByteBuffer out = ByteBuffer.allocate(12 + 8 * counts.length);
                out.putLong(window.getKey()).putInt(model).asLongBuffer().put(counts);
                context.forward(new Record<>(job.models[model], out.array(), timestamp));
            }
        }
    }

    /** The partitions' histograms of a window -> its scores, once all partitions have spoken. */
    static final class Merge implements Processor<byte[], byte[], byte[], byte[]> {
        private final Job job;
        private final Scores found;
        private final Map<List<Long>, long[]> sums = new HashMap<>();
        private final Map<List<Long>, Integer> spoken = new HashMap<>();
        private ProcessorContext<byte[], byte[]> context;

        Merge(Job job, Scores found) {
            this.job = job;
            this.found = found;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> given) {
            context = given;
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            ByteBuffer in = ByteBuffer.wrap(record.value());
            long start = in.getLong();
            int model = in.getInt();
            List<Long> window = List.of(start, (long) model);
            long[] sum = sums.computeIfAbsent(window, key -> new long[job.columns.length * job.bins()]);
            for (int place = 0; place < sum.length; place++) {
                sum[place] += in.getLong();
            }
            if (spoken.merge(window, 1, Integer::sum) < job.partitions) {
                return;
            }
            sums.remove(window);
            spoken.remove(window);
            StringBuilder lines = new StringBuilder();
            for (int place = 0; place < job.columns.length; place++) {
                double psi = Psi.of(sum, place * job.bins(), job.reference[place]);
                lines.append(lines.isEmpty() ? "" : ",\n").append(String.format("[\"%s\",%d,\"%s\",%s]",
                        new String(job.models[model], StandardCharsets.UTF_8), start, job.columns[place], psi));
            }
            context.forward(record.withValue(lines.toString().getBytes(StandardCharsets.UTF_8)));
            found.add(lines.toString());
        }
    }

    /** As `kernels.reference.psi` has it. */
    static final class Psi {
        static double of(long[] counts, int first, long[] reference) {
            int bins = reference.length;
            double n = 0;
            double m = 0;
            int filled = 0;
            for (int bin = 0; bin < bins; bin++) {
                n += counts[first + bin];
                m += reference[bin];
                filled += counts[first + bin] + reference[bin] > 0 ? 1 : 0;
            }
            if (n == 0 || m == 0) {
                return 0;
            }
            double weight = filled / 2.0 / (Math.min(n, m) + filled / 2.0);
            double sum = 0;
            for (int bin = 0; bin < bins; bin++) {
                if (counts[first + bin] + reference[bin] > 0) {
                    double p = (1 - weight) * counts[first + bin] / n + weight / filled;
                    double q = (1 - weight) * reference[bin] / m + weight / filled;
                    sum += (p - q) * Math.log(p / q);
                }
            }
            return Math.max(0, sum);
        }
    }

    /** The scores of all windows, as they come. */
    static final class Scores {
        final CountDownLatch complete;
        private final List<String> lines = Collections.synchronizedList(new ArrayList<>());

        Scores(int windows) {
            complete = new CountDownLatch(windows);
        }

        void add(String scored) {
            lines.add(scored);
            complete.countDown();
        }

        String json() {
            return "[" + String.join(",\n", lines) + "]";
        }
    }
}
