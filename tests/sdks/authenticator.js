// Java's HTTP client sends credentials only when a 401 asks for them: `authenticator.js URL ID TOKEN`. It prints the
// response. Rhino runs it, because .sdks has no Java compiler.

const [url, id, token] = arguments;
const authenticator = new JavaAdapter(java.net.Authenticator, {
    getPasswordAuthentication: () => new java.net.PasswordAuthentication(id, Array.from(token)),
});
const client = java.net.http.HttpClient.newBuilder().authenticator(authenticator).build();
const request = java.net.http.HttpRequest.newBuilder(java.net.URI.create(url)).build();
print(client.send(request, java.net.http.HttpResponse.BodyHandlers.ofString()).body());
