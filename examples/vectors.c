/* A test in C99 that needs no Python: it reads what `npselect vectors` has written, and judges a small implementation.

     npselect vectors --out vectors --dtype float32 --operator straight_through
     cc -std=c99 -O2 -o judge examples/vectors.c -lm && ./judge vectors/straight_through-float32.json

   The two functions under test are your own; with -DWRONG, theirs forgets 1/temp. Exit status: 0 all rows are right,
   1 some are wrong, 2 the file cannot be read. vectors.schema.json, beside the vectors, says what each key means. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------------------------------------- under test */

static int refused(size_t choices, float temp) { return choices == 0 || !(temp > 0 && temp < INFINITY); }

static size_t forward(const float *w, size_t choices) { /* the first of the largest, whose mask is 1 */
  size_t best = 0;
  for (size_t j = 1; j < choices; j++)
    if (w[j] > w[best]) best = j;
  return best;
}

static void backward(const float *g, const float *w, size_t choices, float temp, float *grad) {
  float top = w[forward(w, choices)], sum = 0, mean = 0;
  for (size_t j = 0; j < choices; j++) sum += grad[j] = expf((w[j] - top) / temp);
  for (size_t j = 0; j < choices; j++) mean += w[j] > -INFINITY ? (grad[j] /= sum) * g[j] : 0;
  for (size_t j = 0; j < choices; j++) {
    grad[j] = w[j] > -INFINITY ? grad[j] * (g[j] - mean) : 0; /* what is excluded has none, whatever g is there */
#ifndef WRONG
    grad[j] /= temp;
#endif
  }
}

/* ---------------------------------------------------------------------------------------------- reading

   As much of JSON as the schema needs, in any layout: brackets and lengths are checked, not all that JSON forbids. */

static void fail(const char *why, const char *what) {
  fprintf(stderr, "vectors: %s %s\n", why, what);
  exit(2);
}

static const char *blank(const char *p) { return p + strspn(p, " \t\r\n"); }

static const char *after(const char *p) { /* the value at p: a string, a list or an object, or a word */
  if (*p != '"' && *p != '[' && *p != '{') return p + strcspn(p, ",]} \t\r\n");
  int depth = 0, quoted = 0;
  do {
    if (*p == 0) fail("the file ends inside", "a value");
    if (quoted && *p == '\\') p++;
    else if (*p == '"') quoted = !quoted;
    else if (!quoted) depth += (*p == '[' || *p == '{') - (*p == ']' || *p == '}');
    p++;
  } while (depth || quoted);
  return p;
}

static const char *next(const char *p) { /* the item or key after the one that ends at p, or the closing bracket */
  p = blank(p);
  return *p == ',' ? blank(p + 1) : p;
}

static const char *find(const char *object, const char *key) { /* a key's value; NULL: none. Keys have no escapes */
  size_t length = strlen(key);
  for (const char *p = blank(object + 1); *p == '"';) {
    const char *value = blank(blank(after(p)) + 1);
    if ((size_t)(after(p) - p) == length + 2 && !strncmp(p + 1, key, length)) return value;
    p = next(after(value));
  }
  return NULL;
}

static const char *get(const char *object, const char *key) { /* the value of a key */
  const char *value = find(object, key);
  if (!value) fail("there is no", key);
  return value;
}

static double number(const char *p) { /* "f32:3f800000", "f64:3ff0000000000000", true, false, or 12 */
  if (*p != '"') return *p == 't' ? 1 : strtod(p, NULL);
  uint64_t bits = strtoull(p + 2 + strcspn(p + 1, ":\""), NULL, 16);
  uint32_t narrow = (uint32_t)bits;
  float single;
  double wide;
  memcpy(&single, &narrow, sizeof single);
  memcpy(&wide, &bits, sizeof wide);
  return strncmp(p, "\"f32:", 5) ? wide : single;
}

static double *list(const char *entry, const char *key, size_t *count) { /* the numbers of a list; NULL if it is null */
  const char *p = get(entry, key);
  size_t size = (size_t)(after(p) - p), found = 0;
  double *items = *p == '[' ? malloc(size * sizeof *items) : NULL;
  if (*p != '[') return NULL;
  if (!items) fail("no memory for", key);
  for (p = blank(p + 1); *p != ']'; p = next(after(p))) items[found++] = number(p);
  if (*count && found != *count) fail("not as long as shape says:", key);
  *count = found;
  return items;
}

/* ---------------------------------------------------------------------------------------------- the judgement */

static int judge(const char *entry, size_t *rows) { /* 1 if the case is wrong; counts the rows that were judged */
  size_t axes = 0, inner = 1, n = 1;
  double *shape = list(entry, "shape", &axes), temp = number(get(entry, "temp")), axis = number(get(entry, "axis"));
  size_t along = (size_t)(axis < 0 ? axis + (double)axes : axis);
  if (along >= axes) fail("no such", "axis");
  const char *settings = find(entry, "settings"); /* options of the operator, in cases that ask for some */
  float forward_temp = settings ? (float)number(get(settings, "forward_temp")) : 1;
  for (size_t i = 0; i < axes; i++) n *= (size_t)shape[i];
  for (size_t i = along + 1; i < axes; i++) inner *= (size_t)shape[i];
  size_t choices = (size_t)shape[along], m = choices ? n / choices : 0;
  if (*get(entry, "error") != 'n') return !refused(choices, (float)temp);
  double *logits = list(entry, "logits", &n), *noise = list(entry, "noise", &n), *where = list(entry, "where", &n);
  double *cotangent = list(entry, "grad_mask", &n), *mask = list(entry, "mask", &n);
  double *right = list(entry, "grad_logits", &n), *bound = list(entry, "bound", &n);
  double *judged = list(entry, "judged", &m);
  float *w = malloc(3 * choices * sizeof *w), *g = w + choices, *grad = g + choices;
  if (!logits || !cotangent || !mask || !right || !bound || !judged || !w) fail("there is a null among", "the answers");
  for (size_t row = 0; row < m; row++) { /* row by row in C order: its entries are `inner` apart */
    if (!judged[row]) continue;
    ++*rows;
    size_t first = row / inner * inner * choices + row % inner;
    for (size_t j = 0, at = first; j < choices; j++, at += inner) {
      w[j] = where && !where[at] ? -INFINITY : (float)logits[at] + (noise ? forward_temp * (float)noise[at] : 0);
      g[j] = (float)cotangent[at];
    }
    size_t index = forward(w, choices);
    backward(g, w, choices, forward_temp * (float)temp, grad);
    for (size_t j = 0, at = first; j < choices; j++, at += inner)
      if (mask[at] != (j == index) || !(fabs(grad[j] - right[at]) <= bound[at])) {
        printf("%.*s, row %zu, choice %zu: mask %d, expected %g; gradient %.9g, expected %.9g, give or take %.2g\n",
               (int)(after(get(entry, "id")) - get(entry, "id")), get(entry, "id"), row, j, j == index, mask[at],
               grad[j], right[at], bound[at]);
        return 1;
      }
  }
  return 0; /* the lists are left to the end of the process */
}

int main(int count, char **words) {
  FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
  if (!file) fail("cannot open", count == 2 ? words[1] : "(give one file of vectors)");
  size_t size = 0, read, rows = 0, cases = 0, wrong = 0;
  char *text = malloc(1);
  while ((text = realloc(text, size + 65537)) && (read = fread(text + size, 1, 65536, file)) > 0) size += read;
  if (!text) fail("cannot hold", words[1]);
  text[size] = 0;
  const char *whole = blank(text);
  if (*whole != '{' || strncmp(get(whole, "schema"), "\"npselect-vectors/1\"", 20)) fail("no vectors/1:", words[1]);
  if (strncmp(get(whole, "dtype"), "\"float32\"", 9)) fail("this test is of", "float32");
  const char *operator = get(whole, "operator");
  if (strncmp(operator, "\"straight_through\"", 18) && strncmp(operator, "\"gumbel_softmax\"", 16)) {
    char name[32] = "";
    size_t length = strcspn(operator, ",} \r\n");
    fail("this test is not of", strncat(name, operator, length < 31 ? length : 31));
  }
  for (const char *p = blank(get(whole, "cases") + 1); *p == '{'; p = next(after(p)), cases++) wrong += judge(p, &rows);
  printf("%zu of %zu cases are wrong, %zu rows judged\n", wrong, cases, rows);
  return rows == 0 ? 2 : wrong > 0;
}
