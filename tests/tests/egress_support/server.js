// Serves the files of a directory by HTTP/1, and by TLS with HTTP/1 and HTTP/2. Usage: server.js ADDRESS HTTP-PORT
// TLS-PORT CERTIFICATE KEY, in the directory.
const fs = require("fs");
const http = require("http");
const http2 = require("http2");

const [address, plain, tls, cert, key] = process.argv.slice(2);

function serve(request, response) {
  const path = "." + decodeURIComponent(request.url.split("?")[0]).replace(/\.\./g, "");
  for (const file of [path, path + "/index.html"]) {
    if (fs.existsSync(file) && fs.statSync(file).isFile()) {
      const type = file.endsWith(".html") ? "text/html" : "application/octet-stream";
      response.writeHead(200, { "content-type": type });
      return response.end(fs.readFileSync(file));
    }
  }
  response.writeHead(404);
  response.end();
}

const options = { allowHTTP1: true, cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
http.createServer(serve).listen(plain, address, () =>
  http2.createSecureServer(options, serve).listen(tls, address, () => console.log("ready")));
