// Fan-out on @aws-sdk/client-sns and client-sqs, as anyone would write it. Prints a line of JSON: what each queue got.
//
//   node fanout.mjs PUBLISHING_URL RECEIVING_URL PREFIX

import {
  CreateTopicCommand,
  ListSubscriptionsByTopicCommand,
  PublishBatchCommand,
  PublishCommand,
  SetSubscriptionAttributesCommand,
  SNSClient,
  SubscribeCommand,
} from "@aws-sdk/client-sns";
import { CreateQueueCommand, DeleteMessageCommand, GetQueueAttributesCommand, ReceiveMessageCommand, SQSClient } from "@aws-sdk/client-sqs";

const [publishingUrl, receivingUrl, prefix] = process.argv.slice(2);
const region = "eu-west-1";
const sns = new SNSClient({ endpoint: publishingUrl, region, maxAttempts: 10 });
const sqs = new SQSClient({ endpoint: receivingUrl, region, maxAttempts: 10 });

async function subscribed(TopicArn, name, Attributes) {
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: `${prefix}-${name}` }));
  const told = await sqs.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }));
  const Endpoint = told.Attributes.QueueArn;
  const asked = { TopicArn, Protocol: "sqs", Endpoint, Attributes, ReturnSubscriptionArn: true };
  return { QueueUrl, ...(await sns.send(new SubscribeCommand(asked))) };
}

async function received(QueueUrl, count) {
  const got = [];
  while (got.length < count) {
    const asked = { QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 5, MessageAttributeNames: ["All"] };
    for (const message of (await sqs.send(new ReceiveMessageCommand(asked))).Messages ?? []) {
      got.push(message);
      await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: message.ReceiptHandle }));
    }
  }
  const { Messages } = await sqs.send(new ReceiveMessageCommand({ QueueUrl }));
  return [...got, ...(Messages ?? [])];
}

const kind = (value) => ({ kind: { DataType: "String", StringValue: value } });
const { TopicArn } = await sns.send(new CreateTopicCommand({ Name: `${prefix}-news`, Attributes: { DisplayName: "News" } }));
const all = await subscribed(TopicArn, "all", {});
const orders = await subscribed(TopicArn, "orders", { RawMessageDelivery: "true" });
const FilterPolicy = JSON.stringify({ kind: ["order", { prefix: "re" }] });
await sns.send(
  new SetSubscriptionAttributesCommand({ SubscriptionArn: orders.SubscriptionArn, AttributeName: "FilterPolicy", AttributeValue: FilterPolicy }),
);
const { Subscriptions } = await sns.send(new ListSubscriptionsByTopicCommand({ TopicArn }));

const published = [];
for (const [Message, of] of [["one", "order"], ["two", "weather"]]) {
  const { MessageId } = await sns.send(new PublishCommand({ TopicArn, Message, Subject: "s", MessageAttributes: kind(of) }));
  published.push(MessageId);
}
const PublishBatchRequestEntries = [
  { Id: "3", Message: "drei 🚢", MessageAttributes: { ...kind("return"), raw: { DataType: "Binary", BinaryValue: Buffer.from([0, 255]) } } },
  { Id: "4", Message: "four" },
  { Id: "5", Message: "", MessageAttributes: kind("order") },
];
const { Successful, Failed } = await sns.send(new PublishBatchCommand({ TopicArn, PublishBatchRequestEntries }));

const documents = (await received(all.QueueUrl, 4)).map((message) => JSON.parse(message.Body));
const raw = await received(orders.QueueUrl, 2);
process.stdout.write(
  JSON.stringify({
    subscriptions: Subscriptions.map((each) => each.Endpoint.split(":").pop()).sort(),
    published: [...published, ...Successful.map((each) => each.MessageId)],
    failed: Failed.map((each) => [each.Id, each.Code, each.SenderFault]),
    all: documents.map((each) => [each.Message, each.MessageId, each.MessageAttributes?.kind.Value ?? null]),
    orders: raw.map((message) => [message.Body, message.MessageAttributes.kind.StringValue]),
    bytes: raw.map((message) => [...(message.MessageAttributes.raw?.BinaryValue ?? [])]),
  }) + "\n",
);
process.exit(0);
