import{a}from"./chunk-FRDOTD64.js";import"./chunk-3QZAQ7MW.js";import"./chunk-2V7DAXBC.js";import"./chunk-BBLJYPZY.js";import"./chunk-FPMX6H2A.js";import"./chunk-IYWUY3VA.js";export{a as initialize};
