// Swagger UI would fill the optional fields of a form with samples, and send also those that are empty.
const leaveOptionalFieldsOut = () => ({
  components: { ParameterIncludeEmpty: () => null },
  statePlugins: {
    spec: {
      wrapActions: {
        updateJsonSpec: (update) => (document) => {
          for (const operation of Object.values(document.paths ?? {}).flatMap(Object.values)) {
            const form = operation.requestBody?.content["multipart/form-data"]?.schema;
            for (const [name, field] of Object.entries(form?.properties ?? {})) {
              if (!form.required.includes(name)) field.default = "";
            }
          }
          return update(document);
        },
      },
    },
  },
});

// Both documents in one page; the credentials stay when one is left for the other.
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  urls: [
    { url: "/openapi/users.json", name: "Users: accounts and tokens" },
    { url: "/openapi/records.json", name: "Records: WAV in, MP3 link out" },
  ],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  plugins: [leaveOptionalFieldsOut],
  layout: "StandaloneLayout",
  persistAuthorization: true,
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
