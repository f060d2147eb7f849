// Gives back what each client sends, with pipe.
const server = require("net").createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
  client.on("error", () => {});
  client.pipe(client);
});
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
