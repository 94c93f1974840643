// Sends the message on standard input by nodemailer; the one argument is JSON: { transport, envelope }.
const nodemailer = require("nodemailer");
const { transport, envelope } = JSON.parse(process.argv[2]);

const chunks = [];
process.stdin.on("data", (chunk) => chunks.push(chunk));
process.stdin.on("end", async () => {
  try {
    const info = await nodemailer.createTransport(transport).sendMail({ envelope, raw: Buffer.concat(chunks) });
    console.log(info.response);
  } catch (err) {
    console.error(err.message);
    process.exitCode = 1;
  }
});
