"use strict";
// Node's own HTTPS and HTTP/2: serve HOST PORT KEY CERT; https, http2, fetch URL CERT.
// Each client asks three times, the first two at once, and prints the answers in order.
const fs = require("node:fs");
const http2 = require("node:http2");
const https = require("node:https");

function serve(host, port, key, cert) {
  const files = { key: fs.readFileSync(key), cert: fs.readFileSync(cert), allowHTTP1: true };
  const server = http2.createSecureServer(files, (request, answer) => {
    const { localAddress, localPort } = request.stream?.session?.socket ?? request.socket;
    console.log(`seen ${localAddress}:${localPort} HTTP/${request.httpVersion} ${request.url}`);
    answer.end(`served ${request.url} by HTTP/${request.httpVersion}\n`);
  });
  server.listen(Number(port), host);
}

function text(stream) {
  return new Promise((resolve, reject) => {
    let all = "";
    stream.setEncoding("utf8");
    stream.on("data", (piece) => { all += piece; });
    stream.on("end", () => resolve(all));
    stream.on("error", reject);
  });
}

const CLIENTS = {
  https(url, ca) {
    const agent = new https.Agent({ ca, keepAlive: true });
    const get = (path) => new Promise((resolve, reject) => {
      https.get(new URL(path, url), { agent }, (answer) => resolve(text(answer))).on("error", reject);
    });
    return { get, close: () => agent.destroy() };
  },
  http2(url, ca) {
    const session = http2.connect(url, { ca });
    const get = (path) => text(session.request({ ":path": path }));
    return { get, close: () => session.close() };
  },
  fetch(url) { // told of the certificate by NODE_EXTRA_CA_CERTS
    const get = async (path) => (await fetch(new URL(path, url))).text();
    return { get, close: () => {} };
  },
};

async function ask(kind, url, cert) {
  const client = CLIENTS[kind](url, fs.readFileSync(cert));
  const answers = await Promise.all([client.get("/1"), client.get("/2")]);
  answers.push(await client.get("/3"));
  process.stdout.write(answers.join(""));
  client.close();
}

const [what, ...words] = process.argv.slice(2);
if (what === "serve") {
  serve(...words);
} else {
  ask(what, ...words);
}
