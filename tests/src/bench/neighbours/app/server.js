// The app of the tenant who floods. /hold is never answered; /begin/NAME starts a script; /end stops it and tells its count.
const { spawn } = require("child_process");
const fs = require("fs");
const count = "/dev/shm/count";
let script;
const server = require("http").createServer((request, response) => {
  const [, what, name] = request.url.split("/");
  if (what === "hold") return;
  if (what === "begin") {
    fs.writeFileSync(count, "0 0");
    script = spawn("perl", [`${name}.pl`], { detached: true, stdio: ["ignore", "inherit", "inherit"] });
    script.on("error", () => {});
  }
  if (what === "end") {
    try {
      process.kill(-script.pid, "SIGKILL");
    } catch {}
    return response.end(fs.readFileSync(count));
  }
  response.end("ok");
});
server.requestTimeout = 0;
server.listen(process.env.PORT);
