// Answers every request with the instance that served it.
const express = require("express");

const app = express();
app.get("*", (request, response) => {
  response.json({
    app: "node",
    instance: Number(process.env.CF_INSTANCE_INDEX || 0),
    greeting: process.env.GREETING || null,
    runtime: process.version,
  });
});

const server = app.listen(process.env.PORT || 8080, () => console.log(`listening on ${server.address().port}`));

// Finish what was begun, then go.
process.on("SIGTERM", () => server.close(() => process.exit(0)));
