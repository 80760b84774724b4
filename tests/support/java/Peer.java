import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.Proxy;
import java.net.Socket;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Hashtable;
import javax.naming.Context;
import javax.naming.NamingException;
import javax.naming.directory.Attribute;
import javax.naming.directory.InitialDirContext;

/**
 * HTTP clients and a server of the Java platform.
 *
 * <p>socket, nio, url HOST PORT: fetch "/" and print the answer's last line, the body. nio registers
 * OP_CONNECT before it connects. serve HOST PORT: com.sun.net.httpserver. resolve SERVER NAME: Java's own
 * DNS client (the JNDI provider) prints the IPv4 address.
 */
public final class Peer {
  private static final String REQUEST = "GET / HTTP/1.0\r\nHost: test\r\n\r\n";

  private static byte[] request() {
    return REQUEST.getBytes(StandardCharsets.US_ASCII);
  }

  private static void print(String answer) {
    System.out.println(answer.strip().lines().reduce("", (before, line) -> line));
  }

  private static void socket(String host, int port) throws IOException {
    try (Socket socket = new Socket(Proxy.NO_PROXY)) {
      socket.connect(new InetSocketAddress(host, port), 30_000);
      socket.getOutputStream().write(request());
      print(new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8));
    }
  }

  private static void url(String host, int port) throws IOException {
    URI uri = URI.create("http://" + host + ":" + port + "/");
    HttpURLConnection connection =
        (HttpURLConnection) uri.toURL().openConnection(Proxy.NO_PROXY);
    try (InputStream body = connection.getInputStream()) {
      print(new String(body.readAllBytes(), StandardCharsets.UTF_8));
    }
  }

  private static void nio(String host, int port) throws IOException {
    StringBuilder answer = new StringBuilder();
    ByteBuffer buffer = ByteBuffer.allocate(4096);
    try (Selector selector = Selector.open(); SocketChannel channel = SocketChannel.open()) {
      channel.configureBlocking(false);
      channel.register(selector, SelectionKey.OP_CONNECT);
      channel.connect(new InetSocketAddress(host, port));
      boolean open = true;
      while (open) {
        selector.select(30_000);
        for (SelectionKey key : selector.selectedKeys()) {
          if (key.isConnectable() && channel.finishConnect()) {
            key.interestOps(SelectionKey.OP_WRITE);
          } else if (key.isWritable()) {
            channel.write(ByteBuffer.wrap(request()));
            key.interestOps(SelectionKey.OP_READ);
          } else if (key.isReadable()) {
            open = channel.read(buffer.clear()) >= 0;
            answer.append(StandardCharsets.UTF_8.decode(buffer.flip()));
          }
        }
        selector.selectedKeys().clear();
      }
    }
    print(answer.toString());
  }

  private static void serve(String host, int port) throws IOException {
    byte[] body = "served\n".getBytes(StandardCharsets.US_ASCII);
    HttpServer server = HttpServer.create(new InetSocketAddress(host, port), 0);
    server.createContext(
        "/",
        exchange -> {
          exchange.sendResponseHeaders(200, body.length);
          exchange.getResponseBody().write(body);
          exchange.close();
        });
    server.start();
  }

  private static void resolve(String server, String name) throws NamingException {
    Hashtable<String, String> environment = new Hashtable<>();
    environment.put(Context.INITIAL_CONTEXT_FACTORY, "com.sun.jndi.dns.DnsContextFactory");
    environment.put(Context.PROVIDER_URL, "dns://" + server);
    Attribute found = new InitialDirContext(environment).getAttributes(name, new String[] {"A"}).get("A");
    System.out.println(found.get());
  }

  public static void main(String[] arguments) throws IOException, NamingException {
    if (arguments[0].equals("resolve")) {
      resolve(arguments[1], arguments[2]);
      return;
    }
    String host = arguments[1];
    int port = Integer.parseInt(arguments[2]);
    switch (arguments[0]) {
      case "socket" -> socket(host, port);
      case "url" -> url(host, port);
      case "nio" -> nio(host, port);
      default -> serve(host, port);
    }
  }
}
