// Loaded into the proxy before anything else (`node --require`): connections to instances are kept open and used again.
//
// The proxy asks an instance's unix socket with "Connection: close". A quick instance has then answered and closed
// before Node writes the empty end of a request with a body, and on a unix socket even that fails with EPIPE: about one
// such request in some thousand became a 503, although it had been done (https://github.com/nodejs/node/issues/40553).
"use strict";

const http = require("node:http");

const agent = new http.Agent({ keepAlive: true });
const request = http.request;

http.request = function (options, ...rest) {
  const isPlain = options && options.socketPath && options.agent === false;
  // The switch to another protocol (websockets) takes its connection for itself.
  if (isPlain && !/upgrade/i.test(options.headers?.connection ?? "")) {
    options = { ...options, agent, headers: { ...options.headers, connection: "keep-alive" } };
  }
  return request.call(this, options, ...rest);
};
