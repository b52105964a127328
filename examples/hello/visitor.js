// The same caller in Node, beside a sidecar: an ordinary gRPC client on a unix socket.
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const { hello } = grpc.loadPackageDefinition(loader.loadSync(`${__dirname}/hello.proto`));
const client = new hello.v1.GreeterService(
  `unix:${process.env.MESH_RUN_DIR}/greeter.sock`,
  grpc.credentials.createInsecure(),
);
client.Greet({ name: process.argv[2] || "you" }, { deadline: Date.now() + 5000 }, (error, response) => {
  console.log(error ? `${grpc.status[error.code]}: ${error.details}` : response.text);
  process.exit(error ? 1 : 0);
});
