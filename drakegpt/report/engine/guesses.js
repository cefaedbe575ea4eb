// Shannon's guessing game: how many bits a letter carries, judged by how often it was guessed.
//
// Somebody guesses the next letter of a text again and again until it is right. From the shares
// q_i of letters that were right at guess i, Shannon bounds the entropy H of a letter ("Prediction
// and Entropy of Printed English", Bell System Technical Journal 30, 1951, equation 17):
//
//     sum of i (q_i - q_(i+1)) log2 i   <=   H   <=   - sum of q_i log2 q_i
//
// The upper bound holds for every guesser, since a twin of the guesser could read the text from
// the numbers of guesses. The lower bound holds only for a guesser who always names the likeliest
// letter that is left; poor guesses raise it. The q of such a guesser never increase with i.
//
// Few letters tell q only roughly; `shannonBounds` corrects what is wrong on average.
//
// Not here: the game itself, and the probabilities of models and counts.

/**
 * The guess at which a predictor is right that names tokens from the likeliest on.
 * @param {ArrayLike<number>} probabilities  (V,)
 * @param {number} token  the right one
 * @returns {number} 1 for the likeliest; of equally likely tokens the first is named first
 */
function rankOf(probabilities, token) {
  let rank = 1;
  for (let other = 0; other < probabilities.length; other++) {
    if (probabilities[other] > probabilities[token]) rank++;
    else if (probabilities[other] === probabilities[token] && other < token) rank++;
  }
  return rank;
}

/**
 * Estimate Shannon's bounds, in bits per letter, from the guesses that letters took.
 *
 * Observed shares may increase by chance. Where they do, neighbours are pooled: the result is the
 * likeliest of all q that never increase, as the theorem requires, so that `lower` is never above
 * `upper`. The entropy of few observations is too low; the correction of Miller and Madow adds
 * (K - 1) / 2n nats, where K different ranks were seen in n letters.
 *
 * Errors are standard errors by the spread of the single letters. They are 0 if all letters took
 * equally many guesses, which few letters may do by chance.
 * @param {number[]} ranks  of each letter, from 1
 * @returns {?{lower: number, upper: number, lowerError: number, upperError: number,
 *   meanGuesses: number}}  null without any letter
 */
function shannonBounds(ranks) {
  const n = ranks.length;
  if (!n) return null;
  const times = countRanks(ranks);
  const shares = poolDecreasing(times.map((count) => count / n));
  const seen = times.filter((count) => count > 0).length;
  const bitsAbove = (index) => timesLog(index + 1) - timesLog(index); // factors of q in the sum
  const bitsOf = (index) => -Math.log2(shares[index]);
  const correction = (seen - 1) / (2 * n) / Math.LN2;
  return {
    lower: sumOf(shares, (share, index) => share * bitsAbove(index)),
    upper: correction - sumOf(shares, timesLog),
    lowerError: standardError(times, bitsAbove),
    upperError: standardError(times, bitsOf),
    meanGuesses: sumOf(ranks, (rank) => rank) / n,
  };
}

/** Count the letters of each rank: entry i - 1 those that took i guesses. */
function countRanks(ranks) {
  const highest = ranks.reduce((a, b) => Math.max(a, b), 1);
  const times = new Array(highest).fill(0);
  for (const rank of ranks) times[rank - 1]++;
  return times;
}

/**
 * The sequence that never increases and is nearest to `shares`: where one does, it and those
 * before it become their mean ("pool adjacent violators").
 */
function poolDecreasing(shares) {
  const pools = [];
  for (const share of shares) {
    let pool = { sum: share, size: 1 };
    while (pools.length && pools.at(-1).sum / pools.at(-1).size < pool.sum / pool.size) {
      const before = pools.pop();
      pool = { sum: before.sum + pool.sum, size: before.size + pool.size };
    }
    pools.push(pool);
  }
  return pools.flatMap(({ sum, size }) => new Array(size).fill(sum / size));
}

/** The standard error of the mean, over all letters, of what `valueOf` says of a letter's rank. */
function standardError(times, valueOf) {
  const n = sumOf(times, (count) => count);
  const average = (of) => sumOf(times, (count, index) => (count ? (count / n) * of(index) : 0));
  const mean = average(valueOf);
  return Math.sqrt(average((index) => (valueOf(index) - mean) ** 2) / n);
}

/** x log2 x, which is 0 at 0. */
function timesLog(x) {
  return x > 0 ? x * Math.log2(x) : 0;
}

/** The sum of a term over all values. */
function sumOf(values, term) {
  return values.reduce((sum, value, index) => sum + term(value, index), 0);
}
