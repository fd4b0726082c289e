// Both documents in one page; the credentials stay when one is left for the other.
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  urls: [
    { url: "/openapi/users.json", name: "Users: accounts and tokens" },
    { url: "/openapi/records.json", name: "Records: WAV in, MP3 link out" },
  ],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  layout: "StandaloneLayout",
  persistAuthorization: true,
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
