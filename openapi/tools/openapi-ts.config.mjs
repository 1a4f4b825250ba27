// How the TypeScript client is generated. Input and output come from the command line of `cargo dev sdk`.
export default {
  input: process.env.OVENBIRD_SPEC,
  output: { path: process.env.OVENBIRD_OUTPUT, module: { extension: ".js" } },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "@hey-api/sdk"],
};
