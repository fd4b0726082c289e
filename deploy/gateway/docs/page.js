// By default, Swagger UI fills optional form fields with samples and sends empty ones. This plugin stops both.
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

// One page shows both documents. It keeps the credentials when the reader changes to the other document.
SwaggerUIBundle({
  dom_id: "#swagger-ui",
  urls: [
    { url: "/openapi/users.json", name: "Users and their tokens" },
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
