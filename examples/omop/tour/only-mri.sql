-- Cases that an MRI would settle: all that their open clauses wait for is what an MRI answers, and no MRI is ruled out.
-- LCD-I1 takes uptake on a bone scan, SPECT or CT instead, so that nobody need have that too.
WITH unknown AS (
  SELECT patient, lesion, e.feature, cause, m.feature IS NOT NULL AND cause <> 'NotAssessable' AS by_mri
  FROM 'answers/evidence/*.parquet' AS e
  JOIN 'answers/clause_counts.csv' USING (clause)
  LEFT JOIN 'mri.csv' AS m ON m.feature = 'https://w3id.org/kypho#' || e.feature
  WHERE guideline = 'cms-l34228' AND effect NOT IN ('RequiresDocumentation', 'Rates', 'Advises')
    AND clause_truth = 'unknown' AND truth = 'unknown'
)
SELECT patient, lesion, any_value(cause) FILTER (feature = 'MarrowEdemaOnMri') AS mri
FROM 'answers/verdicts/*.parquet' JOIN unknown USING (patient, lesion)
WHERE "cms-l34228" = 'Undetermined'
GROUP BY patient, lesion
HAVING bool_and(by_mri OR feature = 'UptakeOnBoneScan') AND bool_or(by_mri)
ORDER BY patient, lesion
