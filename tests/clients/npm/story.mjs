// A producer on @aws-sdk/client-sqs and a worker on sqs-consumer, as anyone would write them. Prints a line of JSON for
// each message that is handled, and ends when all have been.
//
//   node story.mjs PRODUCING_URL CONSUMING_URL QUEUE MESSAGES

import { CreateQueueCommand, GetQueueAttributesCommand, SendMessageBatchCommand, SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";

const [producingUrl, consumingUrl, queue, messages] = process.argv.slice(2);
const region = "eu-west-1";
const say = (told) => process.stdout.write(JSON.stringify(told) + "\n");

async function produce() {
  const client = new SQSClient({ endpoint: producingUrl, region, maxAttempts: 10 });
  const { QueueUrl } = await client.send(new CreateQueueCommand({ QueueName: queue }));
  for (let number = 0; number < messages; number += 4) {
    await client.send(
      new SendMessageCommand({
        QueueUrl,
        MessageBody: `${number}`,
        MessageAttributes: { ü: { DataType: "String", StringValue: "ö" }, raw: { DataType: "Binary", BinaryValue: Buffer.from([0, 255]) } },
      }),
    );
    const Entries = [1, 2, 3].map((more) => ({ Id: `${more}`, MessageBody: `${number + more}` }));
    const { Failed } = await client.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
    if (Failed?.length) throw new Error(JSON.stringify(Failed));
  }
  client.destroy();
}

function consume(queueUrl) {
  const sqs = new SQSClient({ endpoint: consumingUrl, region, maxAttempts: 10 });
  let deleted = 0;
  let stumbled = false;
  return new Promise((resolve, reject) => {
    const consumer = Consumer.create({
      queueUrl,
      sqs,
      batchSize: 10,
      waitTimeSeconds: 2,
      visibilityTimeout: 30,
      heartbeatInterval: 5,
      terminateVisibilityTimeout: true,
      attributeNames: ["ApproximateReceiveCount"],
      messageAttributeNames: ["All"],
      handleMessage: async (message) => {
        if (message.Body === "5" && !stumbled) {
          stumbled = true;
          throw new Error("stumbled on purpose");
        }
        const attribute = message.MessageAttributes?.raw?.BinaryValue;
        say({ body: message.Body, receives: message.Attributes.ApproximateReceiveCount, raw: attribute ? [...attribute] : null });
        return message; // which is how sqs-consumer is told to delete it
      },
    });
    consumer.on("message_processed", () => ++deleted === Number(messages) && consumer.stop());
    consumer.on("error", reject);
    consumer.on("timeout_error", reject);
    consumer.on("stopped", () => resolve(sqs));
    consumer.start();
  });
}

const setup = new SQSClient({ endpoint: consumingUrl, region, maxAttempts: 10 });
const { QueueUrl } = await setup.send(new CreateQueueCommand({ QueueName: queue }));
const [, sqs] = await Promise.all([produce(), consume(QueueUrl)]);
const { Attributes } = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }));
say({ ended: true, left: [Attributes.ApproximateNumberOfMessages, Attributes.ApproximateNumberOfMessagesNotVisible] });
process.exit(0);
