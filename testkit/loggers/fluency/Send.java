import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import org.komamitsu.fluency.Fluency;
import org.komamitsu.fluency.fluentd.FluencyBuilderForFluentd;

/** Sends the records of a JSON array on stdin with Fluency: HOST PORT TAG. */
public final class Send {
  public static void main(String[] a) throws Exception {
    List<Map<String, Object>> records = new ObjectMapper().readValue(System.in, new TypeReference<List<Map<String, Object>>>() { });
    AtomicReference<Throwable> error = new AtomicReference<>();
    FluencyBuilderForFluentd builder = new FluencyBuilderForFluentd();
    builder.setAckResponseMode(true);
    builder.setErrorHandler(error::set);
    Fluency fluency = builder.build(a[0], Integer.parseInt(a[1]));
    for (Map<String, Object> record : records) {
      Object time = record.remove("_time");
      if (time == null) fluency.emit(a[2], record); else fluency.emit(a[2], ((Number) time).longValue(), record);
    }
    fluency.flush();
    fluency.close();
    if (!fluency.waitUntilAllBufferFlushed(60)) throw new IllegalStateException("buffer not flushed");
    if (error.get() != null) throw new IllegalStateException(error.get());
    System.exit(0);
  }
}
