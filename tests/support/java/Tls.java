import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.stream.Stream;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * The Java platform's HTTPS server and its HTTP client.
 *
 * <p>serve HOST PORT STORE PASSWORD; HTTP_1_1, HTTP_2 URL STORE PASSWORD. STORE holds the server's key and
 * certificate, which clients trust. A client asks three times, the first two at once, and prints the answers
 * in order.
 */
public final class Tls {
  private static SSLContext context(String file, String password)
      throws GeneralSecurityException, IOException {
    KeyStore keys = KeyStore.getInstance("PKCS12");
    try (InputStream stream = Files.newInputStream(Path.of(file))) {
      keys.load(stream, password.toCharArray());
    }
    KeyManagerFactory own = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    own.init(keys, password.toCharArray());
    KeyStore trusted = KeyStore.getInstance("PKCS12");
    trusted.load(null, null);
    trusted.setCertificateEntry("server", keys.getCertificate(keys.aliases().nextElement()));
    TrustManagerFactory others =
        TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    others.init(trusted);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(own.getKeyManagers(), others.getTrustManagers(), null);
    return context;
  }

  private static void serve(String host, int port, SSLContext context) throws IOException {
    HttpsServer server = HttpsServer.create(new InetSocketAddress(host, port), 0);
    server.setHttpsConfigurator(new HttpsConfigurator(context));
    server.setExecutor(Executors.newCachedThreadPool());
    server.createContext(
        "/",
        exchange -> {
          InetSocketAddress local = exchange.getLocalAddress();
          String asked = exchange.getProtocol() + " " + exchange.getRequestURI();
          System.out.println(
              "seen " + local.getAddress().getHostAddress() + ":" + local.getPort() + " " + asked);
          String answer = "served " + exchange.getRequestURI() + " by " + exchange.getProtocol() + "\n";
          byte[] body = answer.getBytes(StandardCharsets.UTF_8);
          exchange.sendResponseHeaders(200, body.length);
          exchange.getResponseBody().write(body);
          exchange.close();
        });
    server.start();
  }

  private static void ask(String version, String url, SSLContext context)
      throws IOException, InterruptedException {
    HttpClient client =
        HttpClient.newBuilder()
            .sslContext(context)
            .version(HttpClient.Version.valueOf(version))
            .build();
    List<CompletableFuture<HttpResponse<String>>> first =
        Stream.of("/1", "/2")
            .map(path -> HttpRequest.newBuilder(URI.create(url + path)).build())
            .map(request -> client.sendAsync(request, BodyHandlers.ofString()))
            .toList();
    for (CompletableFuture<HttpResponse<String>> answer : first) {
      System.out.print(answer.join().body());
    }
    HttpRequest last = HttpRequest.newBuilder(URI.create(url + "/3")).build();
    System.out.print(client.send(last, BodyHandlers.ofString()).body());
  }

  public static void main(String[] arguments)
      throws GeneralSecurityException, IOException, InterruptedException {
    if (arguments[0].equals("serve")) {
      int port = Integer.parseInt(arguments[2]);
      serve(arguments[1], port, context(arguments[3], arguments[4]));
    } else {
      ask(arguments[0], arguments[1], context(arguments[2], arguments[3]));
    }
  }
}
