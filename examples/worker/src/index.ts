/** Streams an answer to the question behind ?q= through the AI binding. */

export interface Env {
  AI: Ai;
}

const MODEL = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";

export default {
  async fetch(request, env): Promise<Response> {
    const question = new URL(request.url).searchParams.get("q") ?? "What is a rainbow?";
    try {
      const stream = await env.AI.run(MODEL, {
        stream: true,
        max_tokens: 256,
        messages: [
          { role: "system", content: "You answer in one sentence." },
          { role: "user", content: question },
        ],
      });
      return new Response(stream, { headers: { "content-type": "text/event-stream" } });
    } catch (error) {
      return new Response(`${error}\n`, { status: 502 });
    }
  },
} satisfies ExportedHandler<Env>;
