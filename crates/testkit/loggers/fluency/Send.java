import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import org.komamitsu.fluency.EventTime;
import org.komamitsu.fluency.Fluency;
import org.komamitsu.fluency.fluentd.FluencyBuilderForFluentd;

/** Sends the records of a JSON array on stdin with Fluency: HOST PORT TAG OPTIONS. */
public final class Send {
  public static void main(String[] a) throws Exception {
    ObjectMapper mapper = new ObjectMapper();
    List<Map<String, Object>> records = mapper.readValue(System.in, new TypeReference<List<Map<String, Object>>>() { });
    ObjectNode options = (ObjectNode) mapper.readTree(a[3]);
    JsonNode ca = options.remove("ca");
    AtomicReference<Throwable> error = new AtomicReference<>();
    FluencyBuilderForFluentd builder = new FluencyBuilderForFluentd();
    mapper.readerForUpdating(builder).readValue(options);
    if (ca != null) builder.setSslSocketFactory(trusting(ca.asText()).getSocketFactory());
    builder.setErrorHandler(error::set);
    Fluency fluency = builder.build(a[0], Integer.parseInt(a[1]));
    for (Map<String, Object> record : records) {
      Object time = record.remove("_time");
      if (time == null) fluency.emit(a[2], record);
      else if (time instanceof Double) fluency.emit(a[2], EventTime.fromEpochMilli(Math.round((Double) time * 1000)), record);
      else fluency.emit(a[2], ((Number) time).longValue(), record);
    }
    fluency.flush();
    fluency.close();
    if (!fluency.waitUntilAllBufferFlushed(60)) throw new IllegalStateException("buffer not flushed");
    if (error.get() != null) throw new IllegalStateException(error.get());
    System.exit(0);
  }

  private static SSLContext trusting(String pem) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null, null);
    store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509")
        .generateCertificate(new ByteArrayInputStream(pem.getBytes(StandardCharsets.US_ASCII))));
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    return context;
  }
}
