import type { CodegenConfig } from "@graphql-codegen/cli";

const config: CodegenConfig = {
  schema: "../../controlplane/api/schema.graphql",
  documents: ["src/**/*.graphql"],
  generates: {
    "src/gql/": {
      preset: "client",
      presetConfig: {
        fragmentMasking: false,
        // src/gql/persisted-documents.json: the server's COMPTROLLER_TRUSTED_DOCUMENTS_FILE.
        persistedDocuments: { hashAlgorithm: "sha256" },
      },
      config: {
        strictScalars: true,
        // Money and counters stay strings: a JavaScript number cannot hold all of them.
        scalars: { ID: "string", Money: "string", BigInt: "string", Date: "string", DateTime: "string" },
        enumsAsTypes: true,
        useTypeImports: true,
        defaultScalarType: "unknown",
      },
    },
  },
};

export default config;
