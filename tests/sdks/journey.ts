// Uses the clients that openapi-generator has generated: `journey.js BASE_URL WAV_IN_BASE64`.

import { BitrateKbps, Configuration, RecordsApi, ResponseError } from "../../.sdks/typescript-fetch/records";
import { Configuration as UsersConfiguration, UsersApi } from "../../.sdks/typescript-fetch/users";
import type { components } from "../../.sdks/openapi-typescript/records";
import type { paths } from "../../.sdks/openapi-typescript/users";

declare const process: { argv: string[] };

function assertEqual<T>(actual: T, expected: T): void {
    if (actual !== expected) {
        throw new Error(`${actual} is not ${expected}`);
    }
}

async function main(basePath: string, wav: string): Promise<void> {
    // Both generators have the same type for what makes a user.
    const postUserRequest: paths["/users"]["post"]["requestBody"]["content"]["application/json"] = { name: "Ann" };
    const ann = await new UsersApi(new UsersConfiguration({ basePath })).postUser({ postUserRequest });
    const accessToken = ann.token;
    const records = new RecordsApi(new Configuration({ basePath, accessToken }));

    // Both generators have the same type for the bitrate.
    const bitrateKbps: components["schemas"]["BitrateKbps"] = BitrateKbps.NUMBER_64;
    // @ts-expect-error No MP3 has this bitrate.
    const wrong: components["schemas"]["BitrateKbps"] = 65;

    const audio = await (await fetch(`data:audio/wav;base64,${wav}`)).blob();
    const made = await records.postRecord({ audio, title: "Sound", bitrateKbps });
    assertEqual(made.title, "Sound");
    assertEqual(made.bitrateKbps, bitrateKbps);

    const page = await records.getRecords();
    assertEqual(page.records.map((one) => one.id).join(), made.id);

    const played = await records.getRecordAudio({ id: made.id, user: ann.id });
    assertEqual(played.size, made.sizeBytes);

    await records.removeRecord({ recordId: made.id });
    const status = await records.getRecord({ recordId: made.id }).then(
        () => 200,
        (error: ResponseError) => error.response.status,
    );
    assertEqual(status, 404);
    await new UsersApi(new UsersConfiguration({ basePath, accessToken })).removeUser();
}

void main(process.argv[2], process.argv[3]);
