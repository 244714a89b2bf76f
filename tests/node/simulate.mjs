// A batch of IAM questions on stdin (a JSON array), the answers of @cloud-copilot/iam-simulate on stdout, in order:
// "Allowed", "ImplicitlyDenied", "ExplicitlyDenied", or {"error": ...} for what the engine did not understand.
//
// {principal, action, resource, account, context, identity: [policy], session: policy | null}: a session of a role.
// {principal, action, resource, account, context, trust: policy}: a federated principal and a role's trust policy.
import { readFileSync } from 'node:fs'
import { createValidatedPolicy, validateSessionPolicy, validateTrustPolicy } from '@cloud-copilot/iam-policy'
import { runSimulation, runUnsafeSimulation } from '@cloud-copilot/iam-simulate'

const simulation = (q) => ({
  request: {
    principal: q.principal,
    action: q.action,
    resource: { resource: q.resource, accountId: q.account },
    contextVariables: q.context
  },
  identityPolicies: (q.identity ?? []).map((policy, index) => ({ name: `policy${index}`, policy })),
  sessionPolicy: q.session ?? undefined,
  resourcePolicy: q.trust,
  serviceControlPolicies: [],
  resourceControlPolicies: []
})

async function session(question) {
  const errors = question.session ? validateSessionPolicy(question.session) : []
  if (errors.length > 0) return { error: errors }
  const answer = await runSimulation(simulation(question), { simulationMode: 'Strict' })
  if (answer.resultType !== 'single') return { error: answer.errors ?? answer.resultType }
  // a context key that this action does not have would make a condition on it look absent
  const ignored = answer.result.ignoredContextKeys
  return ignored.length > 0 ? { error: { ignored } } : answer.overallResult
}

// Without the engine's own look at context keys: it knows the claims of well-known providers only.
async function trust(question) {
  const trust = createValidatedPolicy(question.trust, validateTrustPolicy, { name: 'trust' })
  if (trust.errors.length > 0) return { error: trust.errors }
  return runUnsafeSimulation(simulation({ ...question, trust }), {})
}

const questions = JSON.parse(readFileSync(0, 'utf8'))
const answers = []
for (const question of questions) {
  try {
    answers.push(await (question.trust ? trust(question) : session(question)))
  } catch (error) {
    answers.push({ error: String(error) })
  }
}
process.stdout.write(JSON.stringify(answers))
